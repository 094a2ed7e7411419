"""Plant each fault of the catalogue in a copy of the rules: `python -m tools.mutants [WORD...]`.

The copies are in a temporary directory that comes first on the tests' path: the working tree is
never touched. With words, only the mutants run whose sentence or file has one of them. Ends with 1
when a fault survives, when an old text is not there exactly once, or when the rules as they are do
not pass.

Each mutant has a process of its own, forked from this one after the libraries are imported: to
import them takes longer than most mutants do.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tools.mutants.catalogue import SOURCE, Mutant, mutants

ROOT = Path(__file__).parents[2]
PACKAGE = SOURCE.name
TESTS = ROOT / "tests/unit/rollout"
STORIES = "test_stories.py"  # whole rollouts catch most
LAST = "test_safety.py"  # hundreds of examples take their time
PATIENCE = 8  # times what the rules as they are take; a fault that makes tests endless is caught
OPTIONS = ("-x", "-q", "-rN", "--tb=no", "--noconftest", "--assert=plain", "--hypothesis-seed=0")


@dataclass(slots=True, kw_only=True)
class Trial:
    """The tests of one copy of the rules: with a fault, or without one."""

    mutant: Mutant | None
    place: Path
    process: BaseProcess
    begun: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # that it took
    verdict: str = ""  # the test that failed first; empty when all passed

    @property
    def so_far(self) -> float:
        """Return the seconds that it has taken so far."""
        return time.monotonic() - self.begun

    def conclude(self) -> None:
        """Note what came of it, and remove the copy."""
        self.seconds, file = self.so_far, self.place / "verdict"
        self.verdict = file.read_text() if file.exists() else f"no end after {self.seconds:.0f} s"
        shutil.rmtree(self.place)


def main(words: Sequence[str]) -> int:
    """Run the mutants; return the process's exit code."""
    begun, everyone = time.monotonic(), mutants()
    rotten = [mutant for mutant in everyone if mutant.is_rotten]
    for mutant in rotten:
        _say(f"ROTTEN    {mutant.name}: its old text is not in {mutant.file} exactly once")
    chosen = [m for m in everyone if m not in rotten and _wanted(m, words)]
    survivors = 0
    with _folder() as folder:
        (sound,) = _tried([None], folder, limit=600)
        if sound.verdict:
            _say(f"The rules as they are do not pass: {sound.verdict}")
            return 1
        _say(f"passed    {sound.seconds:5.1f} s  the rules as they are")
        for trial in _tried(chosen, folder, limit=PATIENCE * sound.seconds):
            assert trial.mutant is not None
            survivors += not trial.verdict
            what, by = ("caught  ", f"  <- {trial.verdict}") if trial.verdict else ("SURVIVED", "")
            fault = f"{trial.mutant.file}: {trial.mutant.name}"
            _say(f"{what}  {trial.seconds:5.1f} s  {fault}{by}")
    _say(
        f"{len(chosen) - survivors} of {len(chosen)} caught, {survivors} survived, {len(rotten)} "
        f"rotten, in {time.monotonic() - begun:.0f} s"
    )
    return 1 if survivors or rotten else 0


def _wanted(mutant: Mutant, words: Sequence[str]) -> bool:
    return not words or any(word in f"{mutant.file} {mutant.name}" for word in words)


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a temporary folder, and let properties neither shrink nor remember examples."""
    with tempfile.TemporaryDirectory(prefix="rollcall-mutants-") as name:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = name
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", phases=phases, database=None, deadline=None)
        settings.load_profile("mutants")
        yield Path(name)


def _tried(mutants: Sequence[Mutant | None], folder: Path, *, limit: float) -> Iterator[Trial]:
    """Try mutants, one on each core at a time, and yield each trial when it has ended.

    `limit` is how long one may take, in seconds.
    """
    waiting, running = list(mutants), list[Trial]()
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            running.append(_begin(waiting.pop(0), folder))
        wait([trial.process.sentinel for trial in running], timeout=1)
        for trial in list(running):
            if trial.process.is_alive() and trial.so_far < limit:
                continue
            trial.process.kill()  # only one that has no end
            trial.process.join()
            running.remove(trial)
            trial.conclude()
            yield trial


def _begin(mutant: Mutant | None, folder: Path) -> Trial:
    """Copy the rules, plant the fault, and let the tests run in a process of their own."""
    place = Path(tempfile.mkdtemp(dir=folder))
    copy = place / PACKAGE
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        file = copy / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
    process = get_context("fork").Process(target=_run, args=(place, mutant), daemon=True)
    process.start()
    return Trial(mutant=mutant, place=place, process=process)


def _short(name: str) -> str:
    return name.removeprefix(f"{TESTS.relative_to(ROOT)}/")


class _Failures:
    """A pytest plug-in that notes which tests failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.names.append(_short(report.nodeid))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.names.append(f"{_short(report.nodeid)}: it cannot even be imported")


for _name in ("rollcall_contracts.events", "pytest_asyncio", "xdist", "hypothesis.strategies"):
    import_module(_name)  # before the forks


def _run(place: Path, mutant: Mutant | None) -> None:
    """Run the tests against the copy in this place, and leave the verdict there."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(place))
    used = import_module(PACKAGE).__file__ or ""
    verdict = "" if used.startswith(str(place)) else f"the tests would use {used}"
    files = sorted(TESTS.glob("test_*.py"), key=lambda file: (file.name == LAST, file.name))
    likely = [mutant.tests, STORIES] if mutant is not None else []
    parts = [[TESTS / name] for name in likely]
    for part in (*parts, [file for file in files if file.name not in likely]):
        verdict = verdict or _first_failure(part)
    (place / "verdict").write_text(verdict)


def _first_failure(files: Sequence[Path]) -> str:
    """Return the first test of these files that fails, or nothing."""
    failures = _Failures()
    arguments = [*OPTIONS, "-p", "no:cacheprovider", *(str(file) for file in files)]
    code = pytest.main(arguments, plugins=[failures])
    return failures.names[0] if failures.names else "" if code == 0 else f"pytest ended with {code}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
