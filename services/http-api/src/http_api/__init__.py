"""The Azure-compatible REST API."""
