"""The tests' shared fixtures."""

import signal
from typing import Any

import pytest

pytest_plugins = ["rollcall_testing.fixtures"]

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What tests with these marks share is a machine's one Docker engine, or is heavy: one at a time.
SHARED = ("compose", "libvirt")
# Tests of this file share nothing, and take minutes: any worker runs any of them.
APART = "test_kill.py"


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name packed content by its length: it has its time in it, another one in each worker."""
    return f"{len(val)} bytes" if isinstance(val, bytes) and not val.isascii() else None


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests one worker runs one after the other: mostly those of a file.

    What takes long comes first, so that no worker has it left when the others have nothing.
    """
    for item in items:
        shared = [mark for mark in SHARED if item.get_closest_marker(mark)]
        if shared or item.path.name != APART:
            file = item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(shared[0] if shared else file))
    items.sort(key=_turn)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Refuse to run side by side where groups are not heeded: tests would disturb each other.

    pytest-xdist reads a group from the node id, where it puts it itself (its issue 1386).
    """
    alone = [each for each in ids if "@" not in each.rpartition("]")[2] and APART not in each]
    if node.config.getoption("dist") == "loadgroup" and alone:
        pytest.exit(
            "this pytest-xdist does not heed the groups of tests: install the versions of uv.lock "
            "(make install)",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


def _turn(item: pytest.Item) -> int:
    if any(item.get_closest_marker(mark) for mark in SHARED):
        return 0
    return 1 if item.path.name == APART else 2
