"""From the API's documents to what a person reads: rows, tables and a page. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rollcall_cli.moments import counted, length, local, zone

Document = Mapping[str, Any]
STATUS = {"Completed": "green", "Faulted": "red", "Cancelled": "yellow", "RollingForward": "cyan"}
PHASES = {"ready": "green", "failed": "red"}
HEALTH = {"Healthy": "green", "Unhealthy": "red"}
NOBODY = "-"
NUMBERS = ("instances", "capacity", "healthy", "failed", "id", "batch")


def at(document: Any, path: str) -> Any:
    """Return what is at a dotted path, or None."""
    for part in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(part)
    return document


def table(
    columns: Iterable[str], rows: Iterable[Sequence[Text | str]], empty: str
) -> RenderableType:
    """Return rows under their headings; a sentence where there is none.

    Columns that say nothing are left out. The last one is wrapped where the terminal is too narrow,
    the others are not.
    """
    shown, names = list(rows), list(columns)
    if not shown:
        return Text(empty, style="dim")
    telling = [
        place
        for place in range(len(names))
        if any(str(row[place]).strip() not in ("", NOBODY) for row in shown)
    ]
    made = Table(box=None, pad_edge=False, header_style="bold")
    for place in telling:
        made.add_column(
            names[place],
            no_wrap=place != telling[-1],
            overflow="fold",
            justify="right" if names[place] in NUMBERS else "left",
        )
    for row in shown:
        cells = (row[place] for place in telling)
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return made


def image_words(reference: Document | None) -> str:
    """Return an image reference as one word: publisher:offer:sku:version."""
    parts = [str((reference or {}).get(p) or "") for p in ("publisher", "offer", "sku", "version")]
    return ":".join(part for part in parts if part) or NOBODY


def place(id: str) -> tuple[str, str]:
    """Return the subscription and the resource group of an id."""
    parts = id.split("/")
    return parts[2], parts[4]


# --- sets -----------------------------------------------------------------------------------------


def sets_table(sets: Sequence[Document]) -> RenderableType:
    """Return scale sets, one a row; their subscription where there are several."""
    several = len({place(each["id"])[0].lower() for each in sets}) > 1
    return table(
        ("name", "subscription", "group", "capacity", "image", "automatic", "state", "waits for"),
        (_set_row(each, several) for each in sets),
        "There is no scale set. `rollcall apply -f FILE` makes one.",
    )


def _set_row(document: Document, several: bool) -> Sequence[Text | str]:
    subscription, group = place(document["id"])
    return (
        Text(document["name"], style="bold"),
        subscription if several else "",
        group,
        str(at(document, "sku.capacity")),
        image_words(at(document, "properties.virtualMachineProfile.storageProfile.imageReference")),
        _automatic(document),
        _state(document),
        str(at(document, "properties.rollcall.waitingFor.code") or NOBODY),
    )


def _automatic(document: Document) -> Text:
    enabled = at(
        document, "properties.upgradePolicy.automaticOSUpgradePolicy.enableAutomaticOSUpgrade"
    )
    return Text("on", style="green") if enabled else Text("off", style="yellow")


def _state(document: Document) -> Text:
    state = str(at(document, "properties.provisioningState") or NOBODY)
    return Text(state, style={"Succeeded": "green", "Failed": "red"}.get(state, "yellow"))


def set_page(
    document: Document, view: Document, upgrade: Document | None, now: datetime
) -> RenderableType:
    """Return one set: what it is, how its instances are, and its last upgrade.

    `view` is its instance view, `upgrade` the newest of its upgrades in full, if it had one.
    """
    subscription, group = place(document["id"])
    policy = at(document, "properties.upgradePolicy.rollingUpgradePolicy") or {}
    waits = at(document, "properties.rollcall.waitingFor") or {}
    lines: list[tuple[str, Text | str]] = [
        ("subscription", subscription),
        ("resource group", group),
        (
            "image",
            image_words(
                at(document, "properties.virtualMachineProfile.storageProfile.imageReference")
            ),
        ),
        ("automatic upgrade", _automatic(document)),
        ("capacity", str(at(document, "sku.capacity"))),
        ("state", _state(document)),
        ("instances", _summary(view)),
        ("batches", _batches(policy)),
        (
            "health probe",
            str(
                at(document, "properties.virtualMachineProfile.networkProfile.healthProbe.id")
                or "none: running with its extensions counts as healthy"
            ),
        ),
        ("last upgrade", Text("none yet", style="dim") if upgrade is None else _last(upgrade, now)),
        ("waits for", str(waits.get("message") or NOBODY)),
    ]
    held = at(document, "properties.rollcall.held")
    if held:
        lines.append(("held", Text(f"{held['code']}: {held['message']}", style="red")))
    for warning in at(document, "properties.rollcall.warnings") or ():
        lines.append(("warning", Text(f"{warning['code']}: {warning['message']}", style="yellow")))
    page = Table(box=None, pad_edge=False, show_header=False)
    page.add_column(style="dim", no_wrap=True)
    page.add_column(overflow="fold")
    for name, value in lines:
        page.add_row(name, value if isinstance(value, Text) else Text(value))
    return Group(Text(document["name"], style="bold"), page)


def _summary(view: Document) -> str:
    counts = {
        item["code"]: item["count"] for item in at(view, "virtualMachine.statusesSummary") or ()
    }
    kinds = ("ProvisioningState", "PowerState", "HealthState")
    parts = [
        f"{count} {code.partition('/')[2]}"
        for kind in kinds
        for code, count in counts.items()
        if code.startswith(kind)
    ]
    return ", ".join(parts) or "none"


def _batches(policy: Document) -> str:
    return (
        f"{policy.get('maxBatchInstancePercent', 20)} % at a time, at most "
        f"{policy.get('maxUnhealthyInstancePercent', 20)} % unhealthy, "
        f"{policy.get('maxUnhealthyUpgradedInstancePercent', 20)} % of those upgraded, "
        f"{policy.get('healthTimeout', 'PT5M')} to become healthy"
    )


def _last(upgrade: Document, now: datetime) -> Text:
    done, total = _progress(upgrade)
    begin = datetime.fromisoformat(upgrade["startTime"])
    return Text.assemble(
        f"to {upgrade['targetImageReference']['version']}: ",
        (upgrade["status"], STATUS.get(upgrade["status"], "")),
        f", {done} of {total} done, started {local(begin, now)} {zone(begin)} by "
        f"{upgrade['startedBy']}",
    )


# --- instances ------------------------------------------------------------------------------------


def instances_table(instances: Sequence[Document], now: datetime) -> RenderableType:
    """Return a set's instances, one a row."""
    return table(
        ("id", "name", "host", "zone", "version", "phase", "health", "power", "since", "error"),
        (_instance_row(each, now) for each in instances),
        "The set has no instance.",
    )


def _instance_row(document: Document, now: datetime) -> Sequence[Text | str]:
    properties = document["properties"]
    own = properties["rollcall"]
    error = own.get("error") or {}
    phase, health = own["phase"], own["health"]
    return (
        document["instanceId"],
        str(at(properties, "osProfile.computerName") or document["name"]),
        own["host"],
        ", ".join(document.get("zones") or ()) or NOBODY,
        str(at(properties, "storageProfile.imageReference.exactVersion") or NOBODY),
        Text(phase, style=PHASES.get(phase, "yellow")),
        Text(health, style=HEALTH.get(health, "yellow")),
        _power(properties),
        local(datetime.fromisoformat(own["since"]), now),
        Text(str(error.get("message") or ""), style="red"),
    )


def _power(properties: Document) -> str:
    for status in at(properties, "instanceView.statuses") or ():
        if status["code"].startswith("PowerState/"):
            return str(status["code"].partition("/")[2])
    return NOBODY


# --- images ---------------------------------------------------------------------------------------


def images_table(images: Sequence[Document]) -> RenderableType:
    """Return versions of images, one a row."""
    return table(
        ("publisher", "offer", "sku", "version", "os", "automatic", "as latest", "size", "sha256"),
        (_image_row(each) for each in images),
        "No image is published: `rollcall doctor` says how the feeds are.",
    )


def image_parts(id: str) -> tuple[str, str, str, str]:
    """Return publisher, offer, SKU and version of a version's id."""
    parts = id.split("/")
    return parts[-9], parts[-5], parts[-3], parts[-1]


def _image_row(document: Document) -> Sequence[Text | str]:
    publisher, offer, sku, version = image_parts(document["id"])
    properties = document["properties"]
    own = properties["rollcall"]
    supported = at(properties, "automaticOSUpgradeProperties.automaticOSUpgradeSupported")
    return (
        publisher,
        offer,
        sku,
        Text(version, style="bold"),
        str(at(properties, "osDiskImage.operatingSystem") or NOBODY),
        Text("yes", style="green") if supported else Text("not in the catalogue", style="yellow"),
        "never" if own["excludeFromLatest"] else "yes",
        size_words(own["size"]),
        own["sha256"][:12],
    )


def size_words(size: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


# --- history --------------------------------------------------------------------------------------


def history_lines(entries: Sequence[Document], now: datetime) -> RenderableType:
    """Return upgrades, newest first, of osUpgradeHistory or of Rollcall's own record.

    A line each, and below it the id, and why it ended so where that has to be said.
    """
    if not entries:
        return Text("The set never had an upgrade.", style="dim")
    flat = [_flat(each) for each in entries]
    rows = [_history_row(each, now) for each in flat]
    heads = ("started", "took", "version", "status", "instances", "by")
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    parts: list[RenderableType] = [Text(_spread(heads, widths), style="bold")]
    for each, row in zip(flat, rows, strict=True):
        line = Text(_spread(row, widths))
        line.highlight_words([each["status"]], style=STATUS.get(each["status"], ""))
        parts.append(line)
        parts.append(Text(f"  {each['id']}", style="dim"))
        error = each.get("error")
        if error:
            said = Text(f"{error['code']}: {error['message']}", style="red")
            parts.append(Padding(said, (0, 0, 0, 2)))
    return Group(*parts)


def _spread(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _history_row(flat: Document, now: datetime) -> Sequence[str]:
    begin = datetime.fromisoformat(flat["startTime"])
    end = flat["endTime"]
    took = length((datetime.fromisoformat(end) if end else now) - begin)
    done, total = _progress(flat)
    return (
        local(begin, now),
        took if end else f"{took} so far",
        flat["targetImageReference"]["version"],
        flat["status"],
        f"{done} of {total}",
        flat["startedBy"],
    )


def _flat(entry: Document) -> Document:
    """Return an entry of osUpgradeHistory with the names of Rollcall's own record."""
    properties = entry.get("properties")
    if properties is None:
        return entry
    status = properties["runningStatus"]
    return {
        **properties,
        "id": properties["rollcall"]["upgradeId"],
        "status": status["code"],
        "startTime": status["startTime"],
        "endTime": status.get("endTime"),
    }


def _progress(upgrade: Document) -> tuple[int, int]:
    progress = upgrade["progress"]
    return progress["successfulInstanceCount"], sum(progress.values())


def upgrade_page(upgrade: Document, now: datetime) -> RenderableType:
    """Return one upgrade: its batches, and what became of each instance."""
    batches = table(
        ("batch", "instances", "began", "took", "healthy", "failed", "reason"),
        (_batch_row(each, now) for each in upgrade["batches"]),
        "It has no batch yet.",
    )
    instances = table(
        ("id", "state", "batch", "from", "reason"),
        (
            (
                item["instanceId"],
                item["state"],
                str(item["batch"] or NOBODY),
                item["fromVersion"] or NOBODY,
                str((item["error"] or {}).get("message") or item["reason"]),
            )
            for item in upgrade.get("instances") or ()
        ),
        "",
    )
    parts: list[RenderableType] = [Text.assemble(("Upgrade ", "bold"), _last(upgrade, now))]
    error = upgrade["error"]
    if error is None or error["message"] != upgrade["reason"]:
        parts.append(Text(upgrade["reason"]))
    if error is not None:
        parts.append(Text(f"{error['code']}: {error['message']}", style="red"))
    return Group(*parts, Text(), batches, Text(), instances)


def _batch_row(batch: Document, now: datetime) -> Sequence[Text | str]:
    begin = datetime.fromisoformat(batch["startTime"])
    end = batch["endTime"]
    took = length((datetime.fromisoformat(end) if end else now) - begin)
    failed = batch["failed"]
    return (
        str(batch["number"]),
        str(batch["size"]),
        local(begin, now),
        took if end else f"{took} so far",
        NOBODY if batch["succeeded"] is None else str(batch["succeeded"]),
        NOBODY if failed is None else Text(str(failed), style="red" if failed else ""),
        batch["reason"],
    )


def outcome(upgrade: Document) -> str:
    """Return how an upgrade ended, in a sentence."""
    done, total = _progress(upgrade)
    batches = counted(len(upgrade["batches"]), "batch", "batches")
    version = upgrade["targetImageReference"]["version"]
    error = upgrade.get("error")
    why = f" {error['code']}: {error['message']}" if error else ""
    return (
        f"The upgrade to {version} is {upgrade['status']}: {done} of {total} instances in "
        f"{batches}.{why}"
    )
