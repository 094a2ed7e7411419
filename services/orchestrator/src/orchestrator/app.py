"""What the orchestrator handles, and how often it looks by itself; composition, no logic."""

from functools import partial

from rollcall_contracts import events as e
from rollcall_kit.broker import QueueSpec
from rollcall_kit.consume import BatchConsumer
from rollcall_kit.database import migrations_of
from rollcall_kit.service import Service

from orchestrator.handlers import on_events, tick
from orchestrator.store import Cache

# Beside what agents and probers report: what people ask for, and what feeds bring.
ASKED = (
    e.ImagePublished,
    e.ImageWithdrawn,
    e.ImageHeld,
    e.ImageReleased,
    e.ScaleSetChanged,
    e.ScaleSetDeleted,
    e.UpgradeStartRequested,
    e.UpgradeCancelRequested,
    e.UpgradePauseRequested,
    e.UpgradeResumeRequested,
    e.UpgradeRollbackRequested,
    e.UpgradeApproveRequested,
    e.LifecycleHookAnswered,
    e.InstanceProtectionChanged,
    e.ModelDeployRequested,
    e.PowerChangeRequested,
)


def build() -> Service:
    """Return the orchestrator."""
    cache = Cache()
    return Service(
        name="orchestrator",
        consumers=[
            BatchConsumer(
                queue=QueueSpec(
                    name="orchestrator",
                    bindings=("report.#", *(e.event_type(cls) for cls in ASKED)),
                ),
                handle=partial(on_events, cache=cache),
            )
        ],
        background=[partial(tick, cache=cache)],
        migrations=[migrations_of("orchestrator")],
        reads=["image_view"],
        database=True,
    )
