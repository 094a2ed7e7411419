"""Which network a machine gets, and what tells its address there."""

import json

import pytest
from instance_agent.domain.network import (
    Network,
    is_reachable,
    lan_address,
    leases,
    neighbours,
    own_link,
    parse_network,
)

MAC = "52:0a:0b:0c:0d:0e"


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("user", Network("user")),
        ("bridge:br0", Network("bridge", "br0")),
        ("tap:web-*", Network("tap", "web-*")),
        ("tap:vm0", Network("tap", "vm0")),
    ],
)
def test_a_network_is_named_by_kind_and_name(text: str, network: Network) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize(
    "text",
    ["", "bridge", "bridge:", "bridge:br*", "bridge:a/b", "tap:", "nat", "bridge:" + "a" * 16],
)
def test_what_is_no_network_is_refused_with_the_three_that_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="say user, bridge:NAME or tap:PATTERN"):
        parse_network(text)


def test_a_tap_of_our_own_has_a_name_that_linux_takes_and_no_other_agent_or_instance_has() -> None:
    places = [("h:/a", "0"), ("h:/a", "1"), ("h:/b", "0")]
    links = [own_link(agent, key, "br0") for agent, key in places]
    assert len({link.tap for link in links}) == len({link.mac for link in links}) == 3
    assert all(len(link.tap) <= 15 for link in links)
    assert links[0] == own_link("h:/a", "0", "br0")  # the same whenever it is asked for


def test_an_address_on_a_shared_network_is_one_that_anybody_may_use() -> None:
    first = int(lan_address("h:/a", "0").split(":")[0], 16)
    assert first & 0b10  # locally administered
    assert not first & 0b01  # of one machine


def test_the_newest_lease_of_dnsmasq_comes_first() -> None:
    text = (
        f"1700000100 {MAC} 10.0.0.5 web *\n"
        f"1700000900 {MAC.upper()} 10.0.0.9 web 01:{MAC}\n"
        "1700009999 52:00:00:00:00:01 10.0.0.7 other *\n"
        "duid 00:01:00:01\n"
        f"1700000999 {MAC} fe80::1 web *\n"
    )
    assert leases(text, MAC) == ["10.0.0.9", "10.0.0.5"]


def test_leases_of_a_network_of_libvirt_are_read_too_and_half_a_file_has_none() -> None:
    entry = {"ip-address": "192.168.122.7", "mac-address": MAC, "expiry-time": 1700000000}
    text = json.dumps([entry, {**entry, "mac-address": "52:00:00:00:00:01"}])
    assert leases(text, MAC) == ["192.168.122.7"]
    assert leases(text[:-5], MAC) == []
    assert leases("", MAC) == []


def test_a_neighbour_counts_once_its_hardware_address_is_known() -> None:
    text = (
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.0.0.4         0x1         0x0         00:00:00:00:00:00     *        br0\n"
        f"10.0.0.5         0x1         0x0         {MAC}     *        br0\n"
        f"10.0.0.6         0x1         0x2         {MAC}     *        br0\n"
        f"169.254.1.1      0x1         0x2         {MAC}     *        br0\n"
    )
    assert neighbours(text, MAC) == ["10.0.0.6"]


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("10.0.0.1", True),
        ("127.0.0.1", False),
        ("169.254.0.1", False),
        ("fe80::1%eth0", False),
        ("web", False),
    ],
)
def test_only_addresses_that_others_reach_count(address: str, reachable: bool) -> None:
    assert is_reachable(address) is reachable
