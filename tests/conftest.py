"""The tests' shared fixtures."""

import signal

pytest_plugins = ["rollcall_testing.fixtures"]

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
