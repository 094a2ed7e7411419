"""The host's neighbours: machines whose hardware address it has asked for."""

import socket
from contextlib import suppress

_DISCARD = 9  # the port whose datagrams nobody reads (RFC 863)


def meet(address: str) -> None:
    """Have the kernel ask who is at an address: it does so before it sends anything there."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hello:
        hello.setblocking(False)
        hello.sendto(b"", (address, _DISCARD))
