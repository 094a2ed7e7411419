"""The rules of a rollout: pure functions over the state of one scale set.

`evolve` is the only place where state changes, `decide` the only place where rules live. Neither
reads a clock: time is an argument. `decide` looks at the state alone, never at the message that
woke its caller, so after a crash, a duplicate, a reordering or a timer tick it is asked again.
"""

from rollcall_rollout.decide import decide, next_wake, settle
from rollcall_rollout.evolve import evolve, fold
from rollcall_rollout.explaining import waiting
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.state import Instance, InstancePhase, Member, MemberState, Upgrade
from rollcall_rollout.waits import Wait, WaitCode

__all__ = [
    "Fleet",
    "Instance",
    "InstancePhase",
    "Member",
    "MemberState",
    "Upgrade",
    "Wait",
    "WaitCode",
    "decide",
    "evolve",
    "fold",
    "next_wake",
    "settle",
    "waiting",
]
