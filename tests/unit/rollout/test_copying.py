"""The copy that the rules use is `dataclasses.replace`, only faster."""

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_rollout.copying import replace
from rollcall_rollout.fleet import Fleet, Unsaved
from rollcall_testing.arbitrary import fleets
from rollcall_testing.examples import examples
from rollcall_testing.fleets import spec


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    """A value of one field."""

    name: str = "a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A value that works when it is made."""

    name: str = "a"

    def __post_init__(self) -> None:
        raise AssertionError("copied without being made")


@examples(25)
@given(fleets(), st.data())
def test_a_copy_is_what_dataclasses_would_make(fleet: Fleet, data: st.DataObject) -> None:
    values: list[Any] = [fleet, *fleet.instances.values(), *fleet.holds.values(), One()]
    if fleet.upgrade is not None:
        values += [fleet.upgrade, *fleet.upgrade.members.values()]
    if fleet.hook is not None:
        values.append(fleet.hook)
    value = data.draw(st.sampled_from(values))
    names = [each.name for each in dataclasses.fields(value) if each.init]
    changes = dict.fromkeys(data.draw(st.sets(st.sampled_from(names))), object())
    expected = dataclasses.replace(value, **changes)
    copy = replace(value, **changes)
    assert type(copy) is type(value)
    for each in dataclasses.fields(value):
        assert getattr(copy, each.name) is getattr(expected, each.name)


def test_a_copy_knows_nothing_of_what_was_counted_before() -> None:
    fleet = Fleet(spec=spec())
    fleet.carry(unsaved=Unsaved())
    assert fleet.census is fleet.census
    copy = replace(fleet, next_id=1)
    assert (copy.has_census, copy.unsaved) == (False, None)


def test_a_copy_cannot_be_changed_either() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        replace(One(), name="b").name = "c"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["nothing", "_census"])
def test_a_field_that_is_not_taken_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"Fleet takes no field '{name}'"):
        replace(cast(Any, Fleet(spec=spec())), **{name: None})


def test_a_class_that_works_when_a_value_is_made_is_refused() -> None:
    kind = object.__new__(Worker)
    with pytest.raises(TypeError, match="Worker cannot be copied"):
        replace(kind, name="b")
