"""What the agent is made of."""

import fcntl
import hashlib
import os
import shutil
from functools import partial
from pathlib import Path

import structlog
from rollcall_contracts.events import (
    AgentSeen,
    ImageFetchRequested,
    InstancesCommitRequested,
    InstancesCreateRequested,
    InstancesDeleteRequested,
    InstancesPowerRequested,
    InstancesRestoreRequested,
    InstancesUpgradeRequested,
    event_type,
)
from rollcall_kit.broker import QueueSpec
from rollcall_kit.consume import TaskConsumer
from rollcall_kit.service import Service

from instance_agent import handlers
from instance_agent.domain.cache import parse_limit
from instance_agent.domain.ports import ephemeral
from instance_agent.driver import Driver, Options, load_driver
from instance_agent.host import Host, open_disks
from instance_agent.images import CacheOptions, ImageCache
from instance_agent.journal import Journal
from instance_agent.provisioning import Provisioner
from instance_agent.settings import Settings
from instance_agent.shelf import Shelf
from instance_agent.space import Room

log = structlog.get_logger()

REQUESTS = (
    InstancesCreateRequested,
    InstancesUpgradeRequested,
    InstancesRestoreRequested,
    InstancesCommitRequested,
    InstancesPowerRequested,
    InstancesDeleteRequested,
    ImageFetchRequested,
)


class StateFolderTaken(RuntimeError):
    """Another agent works in the state folder."""


def build(settings: Settings) -> Service:
    """Return the agent of one host. Raises StateFolderTaken, DriverNotFound."""
    claim(settings)
    warn_of_ports(settings)
    host = build_host(settings)
    return Service(
        name="instance-agent",
        consumers=[
            TaskConsumer(
                queue=QueueSpec(
                    name=f"instance-agent.{settings.host}",
                    bindings=tuple(f"{event_type(cls)}.{settings.host}" for cls in REQUESTS),
                ),
                handle=partial(handlers.handle, host=host),
            )
        ],
        background=[
            partial(
                handlers.heartbeat,
                seen=AgentSeen(
                    host=settings.host,
                    driver=host.driver.name,
                    capacity=settings.agent_capacity,
                    tcp_probe_proves_guest=host.driver.capabilities.tcp_probe_proves_guest,
                ),
                interval=settings.heartbeat_interval,
            ),
            partial(handlers.watch_power, host=host, interval=settings.heartbeat_interval),
        ],
    )


def warn_of_ports(settings: Settings, told: Path = Path("/proc/sys/net/ipv4")) -> None:
    """Warn where other programs may get the ports of instances at any time."""
    try:
        local = (told / "ip_local_port_range").read_text()
        reserved = (told / "ip_local_reserved_ports").read_text()
    except OSError:
        return
    found = ephemeral(settings.ports, local, reserved)
    if found is not None:
        log.warning(
            "ports_are_ephemeral",
            first=found[0],
            last=found[-1],
            todo="the system gives them to any program: have ROLLCALL_PORT_RANGE keep out of "
            "net.ipv4.ip_local_port_range, or reserve them (net.ipv4.ip_local_reserved_ports)",
        )


def build_host(settings: Settings) -> Host:
    """Return the host's work with what it needs, made from the settings."""
    room = Room()
    driver = build_driver(settings, room)
    scratch = settings.state_dir / "scratch"
    empty_scratch(scratch)
    journal = open_journal(settings)
    images = build_cache(settings, driver)
    images.keep_all_uses(open_disks(journal))
    return Host(
        driver=driver,
        journal=journal,
        images=images,
        provisioner=Provisioner(
            driver=driver,
            secrets_key=settings.secrets_key,
            custom_data_timeout=settings.custom_data_timeout,
            download_timeout=settings.download_timeout,
            max_download_bytes=settings.max_download_bytes,
            scratch=scratch,
        ),
        concurrency=settings.concurrency,
        stop_grace=settings.stop_grace,
        room=room,
    )


def empty_scratch(folder: Path) -> None:
    """Remove what an agent that was killed left of scripts, which hold secrets in the clear."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("tmp*"):  # as `tempfile` names them
        shutil.rmtree(left)


def build_cache(settings: Settings, driver: Driver) -> ImageCache:
    """Return the image cache, which other agents of this host may share."""
    folder = settings.image_cache_dir or settings.state_dir / "cache"
    agent = hashlib.sha256(os.fsencode(settings.state_dir.resolve())).hexdigest()[:16]
    shelf = Shelf(folder, driver=driver.name, agent=agent)
    return ImageCache(
        shelf,
        driver.import_image,
        CacheOptions(
            max_image_bytes=settings.max_image_bytes,
            max_unpacked_bytes=settings.max_unpacked_bytes,
            limit=parse_limit(settings.image_cache_limit, shutil.disk_usage(folder).total),
            patience=settings.download_timeout,
            tries=settings.download_tries,
            full_check=settings.image_cache_check == "full",
        ),
    )


def build_driver(settings: Settings, room: Room | None = None) -> Driver:
    """Return the driver that the settings name."""
    return load_driver(
        settings.driver,
        Options(
            folder=settings.state_dir / "instances",
            host=settings.host,
            address=settings.instance_address,
            ports=settings.ports,
            start_settle=settings.start_settle,
            max_unpacked_bytes=settings.max_unpacked_bytes,
            room=room or Room(),
        ),
    )


def open_journal(settings: Settings) -> Journal:
    """Return the journal of the state folder."""
    return Journal(settings.state_dir / "journal.sqlite")


def claim(settings: Settings) -> None:
    """Take the state folder for this process, until it ends however it ends."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    # Not inherited by instances, and deliberately never closed: the lock goes with the process.
    descriptor = os.open(settings.state_dir / "agent.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StateFolderTaken(
            f"another agent works in {settings.state_dir}: give each one a ROLLCALL_STATE_DIR of "
            "its own"
        ) from error
