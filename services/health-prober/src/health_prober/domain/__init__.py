"""The prober's rules: what an answer means, when a verdict changes, when to ask. Pure."""
