"""Fixtures and builders for the tests."""

from rollcall_testing.wait import eventually

__all__ = ["eventually"]
