"""The tests' shared fixtures."""

import signal

import pytest

pytest_plugins = ["rollcall_testing.fixtures"]

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that take minutes: begun first, so that no worker has one left when the other has nothing.
SLOW = (
    "test_kill.py",
    "test_demo_libvirt.py",
)
# Files whose tests share nothing, and take minutes: any worker runs any of them.
APART = ("test_kill.py",)


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file on one worker, where they share what they need; the slow first."""
    for item in items:
        if item.path.name not in APART:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.path.name not in SLOW)
