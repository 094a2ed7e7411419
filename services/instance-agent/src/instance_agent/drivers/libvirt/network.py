"""Where a domain's application is reached."""

from contextlib import suppress
from typing import Any

from instance_agent.domain.libvirt.claim import Claim
from instance_agent.domain.network import is_reachable
from instance_agent.driver import Endpoint
from instance_agent.drivers.libvirt.claims import definition
from instance_agent.drivers.libvirt.connection import bindings


def address_of(domain: Any, claim: Claim) -> Endpoint | None:
    """Return a domain's address, or None where nobody knows it yet.

    It is what its facts say; or what QEMU's own network forwards; or, with port 0, what a lease of
    libvirt's network, the guest agent or the host's neighbour table says.
    """
    if claim.address:
        return Endpoint(address=claim.address, port=claim.port)
    forwarded = definition(domain).endpoint()
    if forwarded is not None:
        return Endpoint(address=forwarded[0], port=forwarded[1])
    libvirt = bindings()
    for source in (
        libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE,
        libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT,
        libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP,
    ):
        with suppress(libvirt.libvirtError):  # this one does not know
            for interface in (domain.interfaceAddresses(source) or {}).values():
                for entry in interface["addrs"] or ():
                    if is_reachable(entry["addr"]):
                        return Endpoint(address=entry["addr"], port=claim.port)
    return None
