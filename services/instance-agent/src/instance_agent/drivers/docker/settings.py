"""What the docker driver is told beyond what every driver is."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from rollcall_kit.settings import Settings as BaseSettings


class DockerSettings(BaseSettings):
    """As `ROLLCALL_DOCKER_…` variables. Which engine, `DOCKER_HOST` and its kin say."""

    docker_namespace: str = ""  # whose containers these are; else the host's name and the folder
    docker_port: Annotated[int, Field(ge=0, le=65535)] = 0  # 0: the one that the image exposes
    docker_data_path: str = "/data/{lun}"  # where a data disk is mounted
    docker_memory: Annotated[int, Field(ge=0)] = 0  # MiB; 0: as much as there is
    docker_cpus: Annotated[float, Field(ge=0)] = 0  # 0: all of them
    docker_network: str = ""  # "": the engine's default
    docker_init: bool = False  # the engine's own init, which passes SIGTERM on, as process 1

    @model_validator(mode="after")
    def _data_path_makes_sense(self) -> Self:
        path = self.docker_data_path
        if not path.startswith("/") or path.count("{lun}") != 1:
            raise ValueError(
                f"ROLLCALL_DOCKER_DATA_PATH={path}: give an absolute path with {{lun}} in it once"
            )
        return self
