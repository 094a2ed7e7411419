"""Which domain is which instance: read from the domains' metadata, and written there."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent.domain.libvirt.adoption import (
    ADOPTED,
    NEVER_SAID,
    Adoption,
    in_natural_order,
    means,
)
from instance_agent.domain.libvirt.claim import NAMESPACE, PREFIX, Claim, Kept, read_claim
from instance_agent.domain.libvirt.claim import write_claim as as_text
from instance_agent.domain.libvirt.domains import DomainXml, os_disk, seed_disk
from instance_agent.domain.record import Disk
from instance_agent.driver import InstanceRef
from instance_agent.drivers.libvirt.busy import refuse_busy
from instance_agent.drivers.libvirt.connection import bindings
from instance_agent.failures import OperationFailed

log = structlog.get_logger()


def definition(domain: Any) -> DomainXml:
    """Return a domain as it will be at its next start."""
    libvirt = bindings()
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    return DomainXml(domain.XMLDesc(flags))


def read(domain: Any) -> Claim | None:
    """Return what a domain's metadata says, or None. Raises OperationFailed for nonsense."""
    libvirt = bindings()
    try:
        text = domain.metadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
        )
    except libvirt.libvirtError as error:
        # There is none, or the domain ends for good when it stops, or it has just gone.
        if error.get_error_code() in (
            libvirt.VIR_ERR_NO_DOMAIN_METADATA,
            libvirt.VIR_ERR_OPERATION_INVALID,
            libvirt.VIR_ERR_INVALID_ARG,
            libvirt.VIR_ERR_NO_DOMAIN,
        ):
            return None
        raise
    try:
        return read_claim(text)
    except ValueError as error:
        raise OperationFailed(
            FailureCode.DRIVER,
            f"the metadata {NAMESPACE} of the domain {domain.name()} make no sense: {error}",
        ) from error


def write(domain: Any, claim: Claim) -> None:
    """Write a domain's facts down; nothing else of it changes."""
    libvirt = bindings()
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        as_text(claim),
        PREFIX,
        NAMESPACE,
        libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )


def all_claims(connection: Any) -> Iterator[tuple[Any, Claim]]:
    """Give the domains that have facts, or an operator's mark; nonsense of others is passed by."""
    for domain in connection.listAllDomains():
        with suppress(OperationFailed):
            claim = read(domain)
            if claim is not None:
                yield domain, claim


def every_claim(connection: Any) -> list[Claim]:
    """Return what all domains' metadata say. Raises OperationFailed where one makes no sense."""
    return [claim for each in connection.listAllDomains() if (claim := read(each)) is not None]


class Claims:
    """Finds the domains of one host's instances."""

    def __init__(self, host: str, rules: tuple[Adoption, ...]) -> None:
        """Take the name of the agent's host, and which domains may be adopted."""
        self._host = host
        self._rules = rules
        self._known: dict[str, str] = {}  # UUIDs, by an instance's key
        self._lock = threading.Lock()

    def find(self, connection: Any, ref: InstanceRef) -> tuple[Any, Claim] | None:
        """Return an instance's domain with its facts, or None."""
        libvirt = bindings()
        uuid = self._known.get(ref.key)
        if uuid is not None:
            with suppress(libvirt.libvirtError):
                domain = connection.lookupByUUIDString(uuid)
                claim = read(domain)
                if claim is not None and self._is_of(claim, ref):
                    return domain, claim
        for domain, claim in all_claims(connection):
            if self._is_of(claim, ref):
                self._known[ref.key] = domain.UUIDString()
                return domain, claim
        return None

    def _is_of(self, claim: Claim, ref: InstanceRef) -> bool:
        return (
            claim.instance_id == ref.instance_id
            and claim.scale_set.lower() == ref.scale_set.lower()
            and claim.host == self._host
            and not claim.released
        )

    def adopt(self, connection: Any, ref: InstanceRef) -> tuple[Any, Claim] | None:
        """Take the next domain that may become this instance, and write that down; or None.

        Raises OperationFailed where the next one cannot be upgraded as it is.
        """
        with self._lock:
            found = self.find(connection, ref)
            if found is not None:
                return found
            possible = [
                (domain, mark)
                for domain in connection.listAllDomains()
                if (mark := self._mark(domain, ref)) is not None
            ]
            if not possible:
                return None
            domain, mark = min(possible, key=lambda each: in_natural_order(each[0].name()))
            claim = self._first_claim(domain, mark, ref)
            write(domain, claim)
            self._known[ref.key] = domain.UUIDString()
            return domain, claim

    def _mark(self, domain: Any, ref: InstanceRef) -> Claim | None:
        """Return what says that a domain may become this instance."""
        try:
            said = read(domain)
        except OperationFailed as error:  # it may be anybody's; others can be adopted all the same
            log.warning("domain_passed_by", domain=domain.name(), why=str(error))
            return None
        if said is not None:
            free = not (said.instance_id or said.released) and said.host in ("", self._host)
            return said if free and means(said.scale_set, ref.scale_set) else None
        for rule in self._rules:
            if rule.fits(domain.name(), ref.scale_set):
                return Claim(scale_set=ref.scale_set, version=rule.version)
        return None

    def _first_claim(self, domain: Any, mark: Claim, ref: InstanceRef) -> Claim:
        name = domain.name()
        if not domain.isPersistent():
            raise OperationFailed(
                FailureCode.DRIVER,
                f"the domain {name} is transient, so it would be gone when it stops: define it "
                f"(virsh dumpxml {name} >{name}.xml; virsh define {name}.xml)",
            )
        refuse_busy(domain)
        xml = definition(domain)
        try:
            os_target = mark.os_target or os_disk(xml)
        except ValueError as error:
            raise OperationFailed(
                FailureCode.DRIVER, f"the domain {name} cannot be adopted: {error}"
            ) from error
        found = xml.disk(os_target)
        if found is None or found.source is None:
            raise OperationFailed(
                FailureCode.DRIVER,
                f"the domain {name} has no disk at {os_target}, or nothing in it: say in the "
                "metadata's osDisk which one is its OS disk",
            )
        seed_target = mark.seed_target or seed_disk(xml)
        seed = xml.disk(seed_target) if seed_target else None
        if seed_target and seed is None:
            raise OperationFailed(
                FailureCode.DRIVER,
                f"the domain {name} has no disk at {seed_target}: mend the metadata's seedDisk",
            )
        version = mark.version or NEVER_SAID
        present = Kept(
            disk=Disk(name=ADOPTED, version=version, generation=0),
            source=found.source,
            seed=seed.source if seed is not None else None,
        )
        return replace(
            mark,
            scale_set=ref.scale_set,
            instance_id=ref.instance_id,
            host=self._host,
            adopted=True,
            os_target=os_target,
            seed_target=seed_target,
            disks=(present,),
        )

    def new(self, ref: InstanceRef) -> Claim:
        """Return the facts of a domain that is about to be made."""
        return Claim(scale_set=ref.scale_set, instance_id=ref.instance_id, host=self._host)
