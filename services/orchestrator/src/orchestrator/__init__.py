"""Turns facts into next steps: the only owner of a rollout."""
