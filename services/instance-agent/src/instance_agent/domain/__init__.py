"""The agent's pure part: what one instance's operation has done, and what is left to do."""
