"""What the agent is told from outside, as `ROLLCALL_…` variables."""

import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from rollcall_kit.settings import Settings as BaseSettings

GIB = 1024**3


class Settings(BaseSettings):
    """The agent's settings; durations are seconds, sizes are bytes."""

    host: str = Field(
        default_factory=socket.gethostname, pattern=r"^[A-Za-z0-9_-]+[A-Za-z0-9._-]*$"
    )
    state_dir: Path = Path("rollcall-agent")  # cache, instances and journal; one agent per folder
    driver: str = "process"  # an entry point of the group rollcall.drivers
    instance_address: str = "127.0.0.1"  # where instances listen, and probers connect to
    # Outside of the ephemeral range (32768-60999), from which the system takes ports at any time.
    port_range: Annotated[str, Field(pattern=r"^\d+-\d+$")] = "20000-29999"
    stop_grace: Annotated[float, Field(ge=0)] = 10  # between SIGTERM and SIGKILL
    # How long a start is watched before it counts; a later exit is told as a change of power.
    start_settle: Annotated[float, Field(ge=0)] = 0.02
    custom_data_timeout: Annotated[float, Field(gt=0)] = 1800
    download_timeout: Annotated[float, Field(gt=0)] = 30  # without a byte
    download_tries: Annotated[int, Field(ge=1)] = 5  # of an image, without much progress
    max_image_bytes: Annotated[int, Field(gt=0)] = 16 * GIB
    max_unpacked_bytes: Annotated[int, Field(gt=0)] = 32 * GIB
    max_download_bytes: Annotated[int, Field(gt=0)] = GIB  # of one extension's file
    image_cache_dir: Path | None = None  # else in state_dir; agents of one host may share it
    # Bytes, or percent of the disk that it is on; what instances need is kept all the same.
    image_cache_limit: Annotated[str, Field(pattern=r"^(\d{1,18}|\d{1,2}%|100%)$")] = "20%"
    # quick: sizes and times, at an image's first use after a start; full: its content, too
    image_cache_check: Literal["quick", "full"] = "quick"
    concurrency: Annotated[int, Field(ge=1)] = 64  # instances worked on at once, scripts apart
    # How many instances this host has room for, made ones included; without it nobody counts.
    agent_capacity: Annotated[int, Field(ge=0)] | None = None
    heartbeat_interval: Annotated[float, Field(gt=0)] = 5

    @property
    def ports(self) -> range:
        """Return the ports that instances may get."""
        first, last = self.port_range.split("-")
        return range(int(first), int(last) + 1)

    @model_validator(mode="after")
    def _ports_make_sense(self) -> Self:
        ports = self.ports
        if not ports or ports[0] < 1 or ports[-1] > 65535:
            raise ValueError(
                f"ROLLCALL_PORT_RANGE={self.port_range}: give FIRST-LAST within 1-65535"
            )
        return self
