"""The faults to plant: `faults/<module>.toml` has those of one module of `libs/rollout`.

A fault is a sentence that says what is wrong, and the text whose change makes it so. The old text
is in its file exactly once; `make check` says so when that is no longer true, so that a mutant
cannot rot silently.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FAULTS = Path(__file__).with_name("faults")
SOURCE = Path(__file__).parents[2] / "libs/rollout/src/rollcall_rollout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One fault in one file of `libs/rollout`."""

    file: str
    tests: str  # the file of tests that most likely catches it: run first
    name: str
    old: str
    new: str

    @property
    def is_rotten(self) -> bool:
        """Say whether its old text is not in its file exactly once: nobody knows what to plant."""
        return (SOURCE / self.file).read_text().count(self.old) != 1


def mutants() -> tuple[Mutant, ...]:
    """Return all mutants, in the order of their files."""
    found: list[Mutant] = []
    for file in sorted(FAULTS.glob("*.toml")):
        content = tomllib.loads(file.read_text())
        shared = {"file": f"{file.stem}.py", "tests": content["tests"]}
        found += [Mutant(**shared, **fault) for fault in content["fault"]]
    return tuple(found)
