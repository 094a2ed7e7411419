"""The tests' shared fixtures."""

pytest_plugins = ["rollcall_testing.fixtures"]
