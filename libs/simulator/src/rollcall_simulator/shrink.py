"""From a seed that breaks a promise to the smallest scenario that still does."""

from collections.abc import Iterator
from dataclasses import replace

from rollcall_simulator.control import RULES, Rules
from rollcall_simulator.faults import Fault
from rollcall_simulator.scenario import Options, draw
from rollcall_simulator.simulation import Outcome, simulate

TRIES = 300  # simulations, at most


def shrink(outcome: Outcome, options: Options, rules: Rules = RULES) -> tuple[Options, Outcome]:
    """Return narrower options under which the same promise is broken, and how it then is.

    Kinds of faults are left out one by one, then instances, then happenings, as long as something
    can go. The same outcome always shrinks to the same options.
    """
    if outcome.violation is None:
        raise ValueError(f"seed {outcome.seed} breaks no promise: there is nothing to shrink")
    best, found, tries = options, outcome, TRIES
    while tries > 0:
        for narrower in _narrower(best, found):
            tries -= 1
            tried = simulate(outcome.seed, narrower, rules=rules)
            if tried.violation is not None and tried.violation[0] == outcome.violation[0]:
                best, found = narrower, tried
                break
            if tries <= 0:
                break
        else:
            break
    return best, found


def _narrower(options: Options, outcome: Outcome) -> Iterator[Options]:
    """Yield options that are one step narrower, the greatest steps first."""
    struck = frozenset(fault for fault, count in outcome.struck.items() if count)
    if options.only is None:
        yield replace(options, only=struck, without=frozenset())
    kinds = struck if options.only is None else options.only
    for fault in sorted(kinds):
        yield replace(options, only=kinds - {fault}, without=frozenset())
    scenario = draw(outcome.seed, options)
    for size in _smaller(scenario.spec.capacity):
        yield replace(options, instances=size)
    for count in _smaller(len(scenario.happenings) + 1):
        yield replace(options, happenings=count - 1)


def _smaller(number: int) -> Iterator[int]:
    """Yield numbers below this one: a few small ones, then halves, then the next."""
    seen = sorted({1, 2, 3, 4, 5, 6, 8, number // 2, number - 2, number - 1})
    yield from (value for value in seen if 0 < value < number)


def command(seed: int, options: Options, *, story: bool = True) -> str:
    """Return the command that runs this scenario again."""
    words = [f"rollcall simulate --start {seed} --seeds 1"]
    if options.only is not None:
        words.append(f"--only-faults {_names(options.only)}")
    if options.without:
        words.append(f"--without {_names(options.without)}")
    if options.instances is not None:
        words.append(f"--instances {options.instances}")
    if options.happenings is not None:
        words.append(f"--happenings {options.happenings}")
    return " ".join([*words, *(["--story"] if story else [])])


def _names(faults: frozenset[Fault]) -> str:
    return ",".join(sorted(faults)) or NONE


NONE = "none"
"""How the command line names no fault at all."""
