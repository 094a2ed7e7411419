"""Load balancers' probes, read into the model (M31)."""

from typing import Any

import pytest
from http_api.domain.documents import ModelError
from http_api.domain.load_balancers import read_load_balancer


@pytest.mark.parametrize(
    ("probe", "target"),
    [
        ({"name": "p", "properties": {"port": 80}}, "properties.probes[0].properties.protocol"),
        ({"name": "p", "properties": {"protocol": "Tcp"}}, "properties.probes[0].properties.port"),
        (
            {"name": "p", "properties": {"protocol": "Http", "port": 80}},
            "properties.probes[0].properties.requestPath",
        ),
        (
            {"name": "p", "properties": {"protocol": "Tcp", "port": 80, "requestPath": "/"}},
            "properties.probes[0].properties.requestPath",
        ),
        (
            {"name": "p", "properties": {"protocol": "Tcp", "port": 70000}},
            "properties.probes[0].properties.port",
        ),
        ({"properties": {"protocol": "Tcp", "port": 80}}, "properties.probes[0].name"),
    ],
)
def test_m31_a_faulty_probe_is_named(probe: dict[str, Any], target: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_load_balancer({"properties": {"probes": [probe]}})
    assert [fault.target for fault in caught.value.faults] == [target]


def test_m31_a_probe_takes_azures_words_and_defaults() -> None:
    found = read_load_balancer(
        {
            "properties": {
                "probes": [
                    {"name": "T", "properties": {"protocol": "tcp", "port": 22}},
                    {
                        "name": "h",
                        "properties": {
                            "protocol": "HTTPS",
                            "port": 443,
                            "requestPath": "/",
                            "intervalInSeconds": 3,
                            "numberOfProbes": 2,
                            "probeThreshold": 4,
                        },
                    },
                ]
            }
        }
    )
    assert not found.standard
    tcp, https = found.probes["t"], found.probes["h"]
    assert (tcp.protocol, tcp.interval, tcp.timeout, tcp.number_of_probes) == ("Tcp", 15, 5, 1)
    assert (https.protocol, https.timeout, https.number_of_probes) == ("Https", 3, 4)
