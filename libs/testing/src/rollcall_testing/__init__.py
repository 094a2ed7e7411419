"""Fixtures and builders for the tests."""

from rollcall_testing.wait import eventually, until

__all__ = ["eventually", "until"]
