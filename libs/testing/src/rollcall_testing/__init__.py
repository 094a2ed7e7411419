"""Fixtures and builders for the tests; never installed with the product."""
