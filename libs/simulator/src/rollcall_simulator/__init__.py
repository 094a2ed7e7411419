"""Rollouts in virtual time: what the rules decide when hosts, messages and people misbehave.

`engine` runs a fleet to its end without faults. `simulation` runs what `scenario` draws from a
seed: `site`, `probers` and `people` are the world, `control` and `store` are two orchestrators over
one database, `faults` says what goes wrong. `checker` keeps an account of its own (`ledger`), and
holds every step against the promises in `invariants`. `shrink` makes a failure small, `story`
tells it.
"""
