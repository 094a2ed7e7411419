"""How the demo shows a rollout: a live grid on a terminal, lines elsewhere."""

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rollcall_cli.demo_fleet import FleetView, InstanceView

MARKS = {"Healthy": ("●", "green"), "Unhealthy": ("●", "red")}
BUSY = ("◌", "yellow")


class DemoView:
    """Shows a fleet as it changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._last = ""

    def say(self, text: str) -> None:
        """Print a line above the grid."""
        self._console.print(text)

    def start(self) -> None:
        """Begin to show the grid, where there is a terminal for it."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=12, transient=True)
            self._live.start()

    def stop(self) -> None:
        """End the grid; what was said above it stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, fleet: FleetView, title: str) -> None:
        """Show the fleet as it is now."""
        if self._live is not None:
            self._live.update(grid(fleet, title))
            return
        line = summary(fleet)
        if line != self._last:
            self._last = line
            self._console.print(line, highlight=False)


def grid(fleet: FleetView, title: str) -> RenderableType:
    """Return the grid of instances with the progress of the upgrade."""
    table = Table(title=title, title_justify="left", show_header=True, expand=False)
    hosts = sorted({i.host for i in fleet.instances})
    for host in hosts:
        table.add_column(host, min_width=30)
    columns = [[i for i in fleet.instances if i.host == host] for host in hosts]
    for row in range(max((len(column) for column in columns), default=0)):
        table.add_row(*(_cell(column[row]) if row < len(column) else "" for column in columns))
    return Group(table, *_progress(fleet.upgrade))


def _cell(instance: InstanceView) -> Text:
    busy = instance.phase not in ("ready", "failed")
    mark, colour = BUSY if busy else MARKS.get(instance.health, BUSY)
    state = instance.phase if busy else instance.health.lower()
    return Text.assemble(
        (f"{mark} ", colour), f"web{instance.id:<3} ", (f"{instance.version:<6} ", "bold"), state
    )


def _progress(upgrade: dict[str, Any] | None) -> list[RenderableType]:
    if upgrade is None:
        return []
    progress = upgrade["progress"]
    done = progress["successfulInstanceCount"] + progress["failedInstanceCount"]
    total = sum(progress.values())
    text = (
        f"{_state(upgrade)}, "
        f"{progress['successfulInstanceCount']} of {total} succeeded, "
        f"{progress['failedInstanceCount']} failed"
    )
    return [Text(text), ProgressBar(total=max(total, 1), completed=done, width=60)]


def summary(fleet: FleetView) -> str:
    """Return the fleet in a line."""
    versions: dict[str, int] = {}
    for instance in fleet.instances:
        versions[instance.version or "none"] = versions.get(instance.version or "none", 0) + 1
    healthy = sum(i.health == "Healthy" and i.phase == "ready" for i in fleet.instances)
    shown = ", ".join(f"{count} at {version}" for version, count in sorted(versions.items()))
    state = f"; {_state(fleet.upgrade)}" if fleet.upgrade else ""
    return f"  {healthy} of {len(fleet.instances)} healthy; {shown or 'no instance yet'}{state}"


def _state(upgrade: dict[str, Any]) -> str:
    version = upgrade["targetImageReference"]["version"]
    return f"upgrade to {version}: {upgrade['status']}, batch {len(upgrade['batches'])}"
