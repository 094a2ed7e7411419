"""Names of scale sets: whose they are, and what somebody may have meant. Pure."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LISTED = 20  # names in an error


class InstallationNames:
    """The scale sets of an installation, by their ids."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    @property
    def names(self) -> list[str]:
        """Return the sets' names, each once."""
        return list(dict.fromkeys(id.rpartition("/")[2] for id in self.ids))

    def matching(self, name: str, subscription: str | None, group: str | None) -> list[str]:
        """Return the ids of the sets with a name; case does not count."""
        return [id for id in self.ids if _matches(id, name, subscription, group)]

    def some(self) -> str:
        """Return the names for an error."""
        names = self.names
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        return (", ".join(names[:LISTED]) or "none at all") + more


def near(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean …?` for a name that is close to one of those; else nothing."""
    spelled = {each.lower(): each for each in known}
    found = get_close_matches(name.lower(), list(spelled), n=1, cutoff=0.6)
    return f" Did you mean {spelled[found[0]]}?" if found else ""


def _matches(id: str, name: str, subscription: str | None, group: str | None) -> bool:
    parts = id.lower().split("/")  # "", subscriptions, S, resourcegroups, G, …, name
    return (
        parts[-1] == name.lower()
        and (subscription is None or parts[2] == subscription.lower())
        and (group is None or parts[4] == group.lower())
    )
