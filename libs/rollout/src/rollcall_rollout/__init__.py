"""The rules of a rollout: pure functions over the state of one scale set."""
