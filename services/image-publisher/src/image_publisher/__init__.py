"""Polls image feeds and publishes each new version once."""
