"""Rollouts in virtual time: what the rules decide when hosts, messages and people misbehave.

`engine` runs a fleet to its end without faults.
"""
