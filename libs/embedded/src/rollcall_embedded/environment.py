"""What each child of a stack is told, by its environment."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollcall_embedded.process import INSTANCE_PORTS, LOOPBACK, private_folder

# An agent's host needs neither: it reaches only the broker.
_NOT_FOR_AGENTS = (
    *("ROLLCALL_DATABASE_URL", "ROLLCALL_API_TOKEN"),
    *("ROLLCALL_API_TLS_CERTIFICATE", "ROLLCALL_API_TLS_KEY"),
)


def service_environment(
    *,
    amqp_url: str,
    database_url: str,
    secrets_key: str,
    token: str,
    api_port: int,
    config: str,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """Return what every service of the control plane is told."""
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "ROLLCALL_AMQP_URL": amqp_url,
        "ROLLCALL_DATABASE_URL": database_url,
        "ROLLCALL_CONFIG": config,
        "ROLLCALL_SECRETS_KEY": secrets_key,
        "ROLLCALL_API_TOKEN": token,
        "ROLLCALL_API_HOST": LOOPBACK,
        "ROLLCALL_API_PORT": str(api_port),
        "ROLLCALL_LOG_FORMAT": "json",
        **extra,
    }


def agent_environment(
    shared: Mapping[str, str], folder: Path, *, host: str, hosts: Sequence[str]
) -> dict[str, str]:
    """Return what the agent of one of the `hosts` is told; each has ports of its own to give."""
    share = len(INSTANCE_PORTS) // len(hosts)
    first = INSTANCE_PORTS[hosts.index(host) * share]
    return {key: value for key, value in shared.items() if key not in _NOT_FOR_AGENTS} | {
        "ROLLCALL_HOST": host,
        "ROLLCALL_STATE_DIR": str(private_folder(folder)),
        "ROLLCALL_PORT_RANGE": f"{first}-{first + share - 1}",
    }
