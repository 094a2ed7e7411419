"""`rollcall simulate`: rollouts in virtual time, with every promise of the rules checked."""

import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rollcall_contracts import events as e
from rollcall_simulator import story
from rollcall_simulator.control import RULES, Rules
from rollcall_simulator.faults import MEANING, Fault
from rollcall_simulator.scenario import Options, draw
from rollcall_simulator.shrink import NONE, command, shrink
from rollcall_simulator.simulation import Outcome, simulate
from rollcall_simulator.summary import Summary

ENOUGH = 20  # scenarios that broke a promise: then no more are run
SHOWN = 3  # broken promises for which the smallest scenario is looked for
SEEDS_BELOW = 10**9
PROGRESS = 1.0  # seconds between progress lines on a terminal
INTERRUPTED = 130


def simulate_with(rules: Rules = RULES) -> Callable[..., None]:
    """Return the command over these rules; others than the real ones are for its tests."""

    def run(
        seeds: Annotated[int, typer.Option(help="How many scenarios.", min=1)] = 1000,
        start: Annotated[
            int | None, typer.Option(help="The first seed; without it, fresh ones.", min=0)
        ] = None,
        jobs: Annotated[
            int | None, typer.Option(help="How many at a time; without it, one a core.", min=1)
        ] = None,
        with_story: Annotated[
            bool, typer.Option("--story", help="Tell each rollout as a story.")
        ] = False,
        without: Annotated[
            str, typer.Option(help="Kinds of faults to leave out, with commas between.")
        ] = "",
        only_faults: Annotated[
            str, typer.Option(help=f"The only kinds of faults, with commas between; or '{NONE}'.")
        ] = "",
        instances: Annotated[
            int | None, typer.Option(help="At most so many instances.", min=0)
        ] = None,
        happenings: Annotated[
            int | None, typer.Option(help="Only the first so many events from outside.", min=0)
        ] = None,
    ) -> None:
        """Prove the safety of the rules on rollouts in virtual time, with everything going wrong.

        Each seed is a scenario: a set, a policy, and what happens to them. The same seed is always
        the same rollout. Exits with 1 when a promise is broken, and says how to see it again.
        """
        options = Options(
            without=_faults(without, "--without"),
            only=_faults(only_faults, "--only-faults") if only_faults else None,
            instances=instances,
            happenings=happenings,
        )
        first = secrets.randbelow(SEEDS_BELOW) if start is None else start
        simulations = _Run(first=first, seeds=seeds, options=options, rules=rules, story=with_story)
        try:
            held = simulations.all(jobs or os.cpu_count() or 1)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        if not held:
            raise typer.Exit(1)

    return run


def _faults(text: str, option: str) -> frozenset[Fault]:
    """Return the kinds of faults that are named. Raises BadParameter for a name that is none."""
    names = [name.strip() for name in text.split(",") if name.strip() and name.strip() != NONE]
    unknown = [name for name in names if name not in list(Fault)]
    if unknown:
        known = "\n".join(f"  {fault:12} {meaning}" for fault, meaning in MEANING.items())
        raise typer.BadParameter(f"{option}: no such fault: {', '.join(unknown)}. Known:\n{known}")
    return frozenset(Fault(name) for name in names)


class _Run:
    """One run of the command."""

    def __init__(
        self, *, first: int, seeds: int, options: Options, rules: Rules, story: bool
    ) -> None:
        self._seeds = range(first, first + seeds)
        self._options = options
        self._rules = rules
        self._story = story
        self._summary = Summary()
        self._cpu = 0.0  # seconds, of all processes
        self._shown_at = 0.0

    def all(self, jobs: int) -> bool:
        """Simulate all seeds and report; True when every promise was kept."""
        began = time.perf_counter()
        for outcome, seconds in self._told() if self._story else self._outcomes(jobs):
            self._summary.add(outcome)
            self._cpu += seconds
            self._progress(began)
            if self._summary.failures >= ENOUGH:
                break
        self._clear_line()
        took = time.perf_counter() - began
        print("\n".join(self._summary.lines()))
        print(self._rate(took))
        print(f"Seeds {self._seeds.start} to {self._seeds.start + self._summary.scenarios - 1}.")
        return self._report_broken()

    def _outcomes(self, jobs: int) -> Iterator[tuple[Outcome, float]]:
        if jobs == 1 or len(self._seeds) == 1:
            _prepare(self._options, self._rules)
            yield from map(_one, self._seeds)
            return
        arguments = (self._options, self._rules)
        with multiprocessing.Pool(jobs, initializer=_prepare, initargs=arguments) as pool:
            yield from pool.imap(_one, self._seeds, chunksize=10)

    def _told(self) -> Iterator[tuple[Outcome, float]]:
        for seed in self._seeds:
            began = time.process_time()
            print("\n".join(story.opening(draw(seed, self._options))))
            outcome = simulate(seed, self._options, rules=self._rules, tell=_tell)
            print(f"In the end: {'; '.join(outcome.endings) or 'nothing'}.\n")
            yield outcome, time.process_time() - began

    # --- what is shown ----------------------------------------------------------------------------

    def _progress(self, began: float) -> None:
        now = time.perf_counter()
        if self._story or not sys.stderr.isatty() or now < self._shown_at + PROGRESS:
            return
        self._shown_at = now
        done, failures = self._summary.scenarios, self._summary.failures
        left = (len(self._seeds) - done) * (now - began) / done
        broken = f", {failures} broke a promise" if failures else ""
        line = f"{done} of {len(self._seeds)} scenarios{broken}, {left:.0f} s to go"
        print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)

    def _clear_line(self) -> None:
        if self._shown_at:
            print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)

    def _rate(self, took: float) -> str:
        cpu = max(self._cpu, 1e-9)
        return (
            f"{took:.1f} s: {60 * self._summary.rollouts / cpu:.0f} rollouts "
            f"({60 * self._summary.scenarios / cpu:.0f} scenarios) a minute and core."
        )

    def _report_broken(self) -> bool:
        broken = self._summary.broken
        if not broken:
            print("Every promise was kept.")
            return True
        for number, (promise, outcomes) in enumerate(sorted(broken.items())):
            first = min(outcomes, key=lambda outcome: (sum(outcome.struck.values()), outcome.seed))
            print(f"\nBROKEN in {len(outcomes)} of {self._summary.scenarios}: {promise}")
            options, found = self._options, first
            if number < SHOWN:
                options, found = shrink(first, self._options, self._rules)
            if found.violation is not None:
                print(f"  {found.violation[1]}")
            print(f"  See it with:  {command(first.seed, options)}")
        return False


def _tell(seconds: float, what: str | e.Event) -> None:
    print(story.line(seconds, what))


_options, _rules = Options(), RULES  # of a worker process


def _prepare(options: Options, rules: Rules) -> None:
    global _options, _rules
    _options, _rules = options, rules


def _one(seed: int) -> tuple[Outcome, float]:
    """Simulate a seed in a worker; return also the seconds of processor time that it took."""
    began = time.process_time()
    outcome = simulate(seed, _options, rules=_rules)
    return outcome, time.process_time() - began


run = simulate_with()
