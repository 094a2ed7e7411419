"""`dataclasses.replace` for the frozen values of the rules, at less than half of its cost.

Each step of a rollout copies the set's state some times, and `dataclasses.replace` goes through
`__init__` with a dictionary of all the fields: a sixth of the time of a whole simulation.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that the fields are checked at each call
    from dataclasses import replace as replace
else:

    def replace(value: Any, /, **changes: Any) -> Any:
        """Return a copy of a frozen value with slots, with these fields changed.

        A field that `__init__` does not take has its default again. Raises TypeError for a field
        that is not there or is not taken, and for a class that works when a value of it is made.
        """
        kind = type(value)
        read, writes, defaults = _slots_of(kind)
        copy = object.__new__(kind)
        for write, content in zip(writes.values(), read(value), strict=True):
            write(copy, content)
        for write, default in defaults:
            write(copy, default)
        for name, content in changes.items():
            if name not in writes:
                raise TypeError(f"{kind.__name__} takes no field {name!r}")
            writes[name](copy, content)
        return copy


Read = Callable[[Any], tuple[Any, ...]]
Write = Callable[[Any, Any], None]


@cache
def _slots_of(kind: type[Any]) -> tuple[Read, dict[str, Write], list[tuple[Write, Any]]]:
    """Return what reads the slots of a class, what writes each, and what `__init__` sets itself.

    A slot is written past `__setattr__`, which refuses.
    """
    if hasattr(kind, "__post_init__") or not hasattr(kind, "__slots__"):
        raise TypeError(f"{kind.__name__} cannot be copied slot by slot")
    writes = {each.name: getattr(kind, each.name).__set__ for each in fields(kind)}
    own = [(writes.pop(each.name), each.default) for each in fields(kind) if not each.init]
    return _reader(tuple(writes)), writes, own


def _reader(names: tuple[str, ...]) -> Read:
    if len(names) == 1:  # of one name, attrgetter returns no tuple
        return lambda value: (getattr(value, names[0]),)
    return attrgetter(*names)
