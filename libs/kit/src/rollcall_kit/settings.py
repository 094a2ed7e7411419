"""Settings that every service reads, once, from the environment (`ROLLCALL_…`)."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a service is told from outside; a service with more to know adds fields of its own."""

    model_config = SettingsConfigDict(
        env_prefix="ROLLCALL_", frozen=True, extra="ignore", secrets_dir=None
    )

    amqp_url: str = Field(default="", description="amqp://user:password@host:port/vhost")
    database_url: str = Field(default="", description="postgresql://user:password@host:port/db")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = "auto"  # auto: console on a terminal
    metrics_port: int | None = None  # Prometheus text on this port; nothing is served without one
    metrics_address: str = "127.0.0.1"
    secrets_key: str = Field(default="", description="seals custom data and protected settings")
    config: str = Field(default="", description="path of the configuration file (feeds, catalogue)")
