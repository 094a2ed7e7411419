"""The template that new domains are made from: XML with placeholders, which people edit."""

import string
from collections.abc import Mapping

from instance_agent.domain.libvirt.claim import NAMESPACE, PREFIX, Claim, write_claim
from instance_agent.domain.libvirt.domains import DomainXml
from instance_agent.domain.libvirt.guest_agent import AGENT_CHANNEL
from instance_agent.domain.libvirt.nodes import child, escaped, new_element, parsed

PLACEHOLDERS = ("name", "type", "memory", "cpus", "mac", "console", "address", "port", "guest_port")
_NEEDED = ("name", "type", "disks")


class TemplateInvalid(ValueError):
    """The template makes no domain; the message says why, and what to do."""


def check_template(text: str) -> None:
    """Raise TemplateInvalid where a template cannot make domains."""
    known = (*PLACEHOLDERS, "disks")
    names = {
        match["named"] or match["braced"] or ""
        for match in string.Template.pattern.finditer(text)
        if not match["escaped"]
    }
    for name in sorted(names - set(known)):
        what = f"${{{name}}}" if name else "a single $ (write $$ for the sign itself)"
        raise TemplateInvalid(
            f"{what} is no placeholder; there are: {', '.join(f'${{{k}}}' for k in known)}"
        )
    for name in _NEEDED:
        if name not in names:
            raise TemplateInvalid(f"${{{name}}} is missing")
    try:
        domain = DomainXml(string.Template(text).substitute({name: "1" for name in known}))
    except ValueError as error:
        raise TemplateInvalid(str(error)) from error
    if domain.disks():
        raise TemplateInvalid("it has a <disk>: leave disks to ${disks}")


def fill_template(text: str, values: Mapping[str, str | int], claim: Claim) -> str:
    """Return the XML of a new domain, without disks so far, with its claim.

    It gets a channel for QEMU's guest agent if the template has none.
    """
    safe = {name: escaped(str(value)) for name, value in values.items()}
    domain = DomainXml(string.Template(text).substitute(safe | {"disks": ""}))
    if domain.connected(AGENT_CHANNEL) is None:
        domain.add_channel(AGENT_CHANNEL)
    root = parsed(domain.text())
    metadata = child(root, "metadata")
    if metadata is None:
        metadata = new_element("metadata")
        root.appendChild(metadata)
    own = parsed(write_claim(claim))
    own.setAttribute(f"xmlns:{PREFIX}", NAMESPACE)
    for element in [own, *own.getElementsByTagName("*")]:
        element.tagName = element.nodeName = f"{PREFIX}:{element.tagName}"
    metadata.appendChild(own)
    return str(root.toxml())
