"""Load balancers: only their probes matter here, and whether they are Standard (M31, M32)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollcall_contracts.model import Probe

from http_api.domain.documents import Reader, at

DEFAULT_INTERVAL = 15  # seconds, as in Azure
PROBE_TIMEOUT = 5.0  # seconds; never longer than the interval
_PROTOCOLS = ("Http", "Https", "Tcp")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancer:
    """What the rules need to know of a load balancer."""

    standard: bool
    probes: Mapping[str, Probe]  # by name in lower case


def read_load_balancer(model: Mapping[str, Any]) -> LoadBalancer:
    """Return a load balancer's probes. Raises ModelError, which names each fault's place."""
    reader = Reader(model)
    sku = reader.choice("sku.name", ("Basic", "Standard", "Gateway"), "Basic")
    probes: dict[str, Probe] = {}
    for index, item in enumerate(reader.objects("properties.probes")):
        place = f"properties.probes[{index}]"
        name = item.get("name")
        if not isinstance(name, str) or not name or "/" in name:
            reader.fault(f"{place}.name", f"{place}.name must be the probe's name")
        elif name.lower() in probes:
            reader.fault(f"{place}.name", f"two probes are named {name}")
        elif (probe := _read_probe(reader, place, item)) is not None:
            probes[name.lower()] = probe
    reader.finish()
    return LoadBalancer(standard=sku != "Basic", probes=probes)


def _read_probe(outer: Reader, place: str, item: Mapping[str, Any]) -> Probe | None:
    reader = Reader(item)
    protocol = reader.choice("properties.protocol", _PROTOCOLS, "")
    port = reader.whole("properties.port", low=1, high=65535)
    path = reader.text("properties.requestPath")
    interval = reader.whole(
        "properties.intervalInSeconds", low=1, high=86_400, default=DEFAULT_INTERVAL
    )
    count = reader.whole("properties.numberOfProbes", low=1, high=24, default=1)
    # Newer api-versions: this many equal results change the state, and numberOfProbes is ignored.
    threshold = reader.whole("properties.probeThreshold", low=1, high=24, default=count)
    for required in ("protocol", "port"):
        if at(item, f"properties.{required}") is None:
            reader.fault(f"properties.{required}", f"a probe needs properties.{required}")
    if protocol == "Tcp" and path is not None:
        reader.fault("properties.requestPath", "a Tcp probe has no requestPath")
    if protocol in ("Http", "Https") and path is None:
        reader.fault("properties.requestPath", f"an {protocol} probe needs a requestPath")
    outer.take(reader, place)
    if reader.faults or port is None or interval is None or threshold is None:
        return None
    return Probe.model_validate(
        {
            "protocol": protocol,
            "port": port,
            "request_path": path,
            "interval": interval,
            "timeout": min(PROBE_TIMEOUT, interval),
            "number_of_probes": threshold,
        }
    )
