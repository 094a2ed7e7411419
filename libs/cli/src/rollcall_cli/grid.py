"""The live grid: a picture as lines that fit a terminal, whatever its size. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from textwrap import wrap

from rich.text import Text

from rollcall_cli.moments import length
from rollcall_cli.picture import Cell, Mark, Picture, named
from rollcall_cli.tables import STATUS

GAP = 2  # columns between cells
TEN = 10  # instances that stand together where each is one sign
WAITS = 2  # lines for what is waited for; always as many, so that the grid stays where it is
BAR = 40  # columns of the bar at most
# Of the bar: Azure's count, its sign, one for terminals with ASCII alone, its colour.
PARTS = (
    ("successful", "█", "#", "green"),
    ("failed", "▓", "x", "red"),
    ("inProgress", "▒", "~", "yellow"),
    ("pending", "░", ".", "dim"),
)
LEGEND = (
    (Mark.DONE, "done"),
    (Mark.WAITS, "waits"),
    (Mark.BUSY, "at work"),
    (Mark.SICK, "failed"),
)


def lines(
    picture: Picture,
    now: datetime,
    *,
    width: int,
    height: int,
    ascii_only: bool = False,
    note: str = "",
) -> list[Text]:
    """Return the picture in at most `height` lines of at most `width` columns.

    Instances have their name, version and state where there is room; else a name, else a sign.
    `note` is told in a line of its own, such as that the server does not answer.
    """
    head = list(_head(picture, now, width, ascii_only))
    if note:
        head.append(Text(note, style="bold red"))
    legend = _legend(ascii_only)
    room = height - len(head) - 3  # empty lines, and the legend
    grid = _cells(picture.cells, width, max(room, 1), ascii_only)
    shown = [*head, Text(), *grid, Text(), legend]
    for line in shown:
        line.rstrip()
        line.truncate(width, overflow="ellipsis")
    return shown[:height]


def _head(picture: Picture, now: datetime, width: int, ascii_only: bool) -> Iterator[Text]:
    upgrade = picture.upgrade
    if upgrade is None:
        yield Text.assemble((picture.name, "bold"), ": no upgrade yet")
    else:
        yield _title(picture, now, width)
        yield _bar(picture, width, ascii_only)
        yield _batch(picture, now)
    waits = wrap(picture.waiting, width, max_lines=WAITS, placeholder=" …")
    for line in [*waits, *[""] * (WAITS if picture.is_running else 0)][: max(WAITS, len(waits))]:
        yield Text(line, style="dim")


def _title(picture: Picture, now: datetime, width: int) -> Text:
    upgrade = picture.upgrade
    assert upgrade is not None
    status = upgrade["status"]
    begin = datetime.fromisoformat(upgrade["startTime"])
    end = upgrade["endTime"]
    took = length((datetime.fromisoformat(end) if end else now) - begin)
    back = f" back from {upgrade['rollbackOf']}" if upgrade.get("rollbackOf") else ""
    left = Text.assemble(
        (picture.name, "bold"),
        f": upgrade{back} to ",
        (picture.version, "bold"),
        " ",
        (status, STATUS.get(status, "")),
        f", by {upgrade['startedBy']}",
    )
    gap = width - left.cell_len - len(took)
    return left.append(" " * gap + took) if gap > 0 else left


def _bar(picture: Picture, width: int, ascii_only: bool) -> Text:
    counts = picture.counts
    total = sum(counts.values())
    words = (
        f" {counts['successful']} of {total} done, {counts['failed']} failed, "
        f"{counts['inProgress']} at work, {counts['pending']} wait"
    )
    columns = max(min(width - len(words), BAR), 0)
    bar, drawn, seen = Text(), 0, 0
    for name, sign, plain, style in PARTS:
        seen += counts[name]
        end = round(columns * seen / total) if total else 0
        bar.append((plain if ascii_only else sign) * (end - drawn), style=style)
        drawn = end
    return bar.append(words)


def _batch(picture: Picture, now: datetime) -> Text:
    batches = picture.upgrade["batches"] if picture.upgrade is not None else []
    open_ones = [batch for batch in batches if batch["endTime"] is None]
    if not batches:
        return Text("no batch yet")
    last = open_ones[0] if open_ones else batches[-1]
    number, names = last["number"], named(picture.of_batch(last["number"]))
    if open_ones:
        since = length(now - datetime.fromisoformat(last["startTime"]))
        return Text(f"batch {number}: {names} ({last['size']}), since {since}")
    return Text(
        f"batch {number} done: {names} ({last['succeeded']} healthy, {last['failed']} failed)"
    )


def _cells(cells: Sequence[Cell], width: int, room: int, ascii_only: bool) -> list[Text]:
    """Return the instances in at most `room` lines: as much of each as there is room for."""
    for shown in (_full, _short):
        made = shown(cells, ascii_only)
        columns = max((width + GAP) // (max((c.cell_len for c in made), default=1) + GAP), 1)
        rows = [made[start : start + columns] for start in range(0, len(made), columns)]
        if len(rows) <= room and all(cell.cell_len <= width for cell in made):
            return [Text(" " * GAP).join(row) for row in rows]
    return _signs(cells, width, room, ascii_only)


def _full(cells: Sequence[Cell], ascii_only: bool) -> list[Text]:
    name = max((len(cell.name) for cell in cells), default=0)
    version = max((len(cell.version) for cell in cells), default=0)
    word = max((len(cell.word) for cell in cells), default=0)
    return [
        Text.assemble(
            (cell.mark.sign(ascii_only=ascii_only), cell.mark.colour),
            f" {cell.name:<{name}} ",
            (f"{cell.version:<{version}} ", "bold"),
            (f"{cell.word:<{max(word, 9)}}", cell.mark.colour),
        )
        for cell in cells
    ]


def _short(cells: Sequence[Cell], ascii_only: bool) -> list[Text]:
    name = max((len(cell.name) for cell in cells), default=0)
    return [
        Text.assemble(
            (cell.mark.sign(ascii_only=ascii_only), cell.mark.colour), f" {cell.name:<{name}}"
        )
        for cell in cells
    ]


def _signs(cells: Sequence[Cell], width: int, room: int, ascii_only: bool) -> list[Text]:
    """Return a sign for each instance, in tens; a row begins with the name of its first one."""
    label = max((len(cell.name) for cell in cells), default=0)
    tens = max((width - label) // (TEN + 1), 1)
    rows = []
    for start in range(0, len(cells), tens * TEN):
        part = cells[start : start + tens * TEN]
        row = Text(f"{part[0].name:<{label}}", style="dim")
        for place, cell in enumerate(part):
            row.append(" " if place % TEN == 0 else "")
            row.append(cell.mark.sign(ascii_only=ascii_only), style=cell.mark.colour)
        rows.append(row)
    if len(rows) <= room:
        return rows
    kept = max(room - 1, 0)
    hidden = len(cells) - kept * tens * TEN
    return [*rows[:kept], Text(f"and {hidden} more that do not fit", style="dim")]


def _legend(ascii_only: bool) -> Text:
    legend = Text(style="dim")
    for mark, word in LEGEND:
        legend.append(f"{mark.sign(ascii_only=ascii_only)} ", style=mark.colour)
        legend.append(f"{word}   ")
    legend.rstrip()
    return legend
