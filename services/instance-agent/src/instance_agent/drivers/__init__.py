"""The drivers that come with the agent; others are packages with an entry point of their own."""
