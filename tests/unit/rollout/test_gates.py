"""The sizes of batches and the limits (M10, M11, M15, M16, M42), as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts.model import Health, RollingPolicy, StartedBy
from rollcall_rollout import Fleet, Instance, Member, MemberState, Upgrade
from rollcall_rollout.choosing import BatchChoice, candidates
from rollcall_rollout.choosing import choose_batch as choose
from rollcall_rollout.gates import Share
from rollcall_testing.fleets import START, healthy, image, spec


def choose_batch(
    waiting: list[Instance], everyone: list[Instance], policy: RollingPolicy
) -> BatchChoice:
    """Choose among those that wait, in a set of all."""
    upgrade = Upgrade(
        id="u",
        image=image("1.1"),
        policy=policy,
        started_by=StartedBy.PLATFORM,
        restore_failed=True,
        started_at=START,
        reason="",
        members={i.id: Member(id=i.id, state=MemberState.PENDING, since=START) for i in waiting},
    )
    fleet = Fleet(spec=spec(len(everyone)), instances={i.id: i for i in everyone}, upgrade=upgrade)
    return choose(fleet, upgrade, candidates(fleet, upgrade))


@pytest.mark.parametrize(
    ("count", "total", "limit", "exceeded"),
    [
        (2, 10, 20, False),  # exactly at the limit goes on (M16)
        (3, 10, 20, True),
        (1, 4, 20, True),  # small sets: one of four is 25 %
        (1, 5, 20, False),
        (0, 0, 20, False),
        (1, 100, 0, True),
        (0, 100, 0, False),
        (10, 10, 100, False),
    ],
)
def test_a_limit_is_exceeded_only_above_it(
    count: int, total: int, limit: int, exceeded: bool
) -> None:
    assert Share(count=count, total=total, limit=limit).exceeded is exceeded


@pytest.mark.parametrize(
    ("total", "percent", "size"),
    [
        (10, 20, 2),
        (9, 20, 1),
        (4, 20, 1),
        (1, 20, 1),
        (14, 20, 2),
        (15, 20, 3),
        (100, 20, 20),
        (3, 50, 1),
    ],
)
def test_a_batch_is_the_floor_of_its_percent_and_at_least_one(
    total: int, percent: int, size: int
) -> None:
    everyone = [healthy(str(i)) for i in range(total)]
    policy = RollingPolicy(
        max_batch_instance_percent=percent, max_unhealthy_instance_percent=percent
    )
    assert len(choose_batch(everyone, everyone, policy).instances) == size


@pytest.mark.parametrize(("sick_outside", "size"), [(0, 2), (1, 1), (2, 1)])
def test_a_batch_shrinks_by_the_unhealthy_outside_but_never_below_one(
    sick_outside: int, size: int
) -> None:
    everyone = [
        healthy(str(i), health=Health.UNHEALTHY if i >= 10 - sick_outside else Health.HEALTHY)
        for i in range(10)
    ]
    choice = choose_batch(everyone[:5], everyone, RollingPolicy())
    assert len(choice.instances) == size


def test_an_unhealthy_instance_inside_the_batch_counts_once() -> None:
    everyone = [
        healthy(str(i), health=Health.UNHEALTHY if i == 0 else Health.HEALTHY) for i in range(10)
    ]
    choice = choose_batch(everyone, everyone, RollingPolicy())
    assert [i.id for i in choice.instances] == ["0", "1"]


def test_zones_follow_one_after_the_other_unless_allowed_together() -> None:
    everyone = [healthy(str(i), zone=str(i % 2 + 1)) for i in range(10)]
    one = choose_batch(everyone, everyone, RollingPolicy())
    assert {i.zone for i in one.instances} == {"1"}
    both = choose_batch(everyone, everyone, RollingPolicy(enable_cross_zone_upgrade=True))
    assert {i.zone for i in both.instances} == {"1", "2"}


@given(
    sick=st.lists(st.booleans(), min_size=1, max_size=60),
    pending=st.sets(st.integers(0, 59)),
    batch=st.integers(5, 100),
    unhealthy=st.integers(5, 100),
)
def test_batch_and_unhealthy_outside_stay_within_the_limit(
    sick: list[bool], pending: set[int], batch: int, unhealthy: int
) -> None:
    policy = RollingPolicy(
        max_batch_instance_percent=min(batch, unhealthy), max_unhealthy_instance_percent=unhealthy
    )
    everyone = [
        healthy(str(i), health=Health.UNHEALTHY if s else Health.HEALTHY)
        for i, s in enumerate(sick)
    ]
    waiting = [i for i in everyone if int(i.id) in pending]
    chosen = choose_batch(waiting, everyone, policy).instances
    outside = sum(not i.is_healthy for i in everyone if i not in chosen)
    assert bool(chosen) == bool(waiting)
    assert len(chosen) <= max(1, len(sick) * policy.max_batch_instance_percent // 100)
    if len(chosen) > 1:
        assert len(chosen) + outside <= len(sick) * unhealthy // 100
