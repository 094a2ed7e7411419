"""Which domains of a host may become instances of which scale set."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

NEVER_SAID = "0.0.0"  # the version of an adopted OS disk of which nobody says one: older than any
ADOPTED = "adopted"  # the name of the OS disk that an adopted domain had


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """Domains of these names may be adopted for that scale set."""

    pattern: str
    scale_set: str
    version: str = ""

    def fits(self, name: str, scale_set: str) -> bool:
        """Say whether a domain of that name may become an instance of that scale set."""
        return fnmatchcase(name, self.pattern) and means(self.scale_set, scale_set)


def means(said: str, scale_set: str) -> bool:
    """Say whether a name or a resource id, in any case, is that of a scale set."""
    said, scale_set = said.lower(), scale_set.lower()
    return said in (scale_set, scale_set.rpartition("/")[2])


def parse_adoptions(text: str) -> tuple[Adoption, ...]:
    """Return the rules in `PATTERN=SCALE-SET[@VERSION] …`. Raises ValueError."""
    found = []
    for word in text.split():
        pattern, _, rest = word.partition("=")
        scale_set, _, version = rest.partition("@")
        if not (pattern and scale_set) or ("@" in rest and not version):
            raise ValueError(f"{word!r}: write PATTERN=SCALE-SET or PATTERN=SCALE-SET@VERSION")
        found.append(Adoption(pattern=pattern, scale_set=scale_set, version=version))
    return tuple(found)


def in_natural_order(name: str) -> list[tuple[int, str]]:
    """Return a key by which web-2 comes before web-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
