"""Containers of a Docker engine on this host."""
