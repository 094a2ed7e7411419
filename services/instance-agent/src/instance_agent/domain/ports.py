"""Ports of instances, and those that the system gives to any program at any time."""


def ephemeral(ports: range, local: str, reserved: str) -> range | None:
    """Return which of the ports the system may give away, or None.

    `local` and `reserved` are what Linux says in net.ipv4.ip_local_port_range and
    net.ipv4.ip_local_reserved_ports: of the first, the second are left alone.
    """
    first, last = (int(word) for word in local.split())
    spared: set[int] = set()
    for part in reserved.strip().split(","):
        begin, _, end = part.partition("-")
        if begin:
            spared.update(range(int(begin), int(end or begin) + 1))
    given = [port for port in ports if first <= port <= last and port not in spared]
    return range(given[0], given[-1] + 1) if given else None
