"""`rollcall events`: the event log, its last entries or as it grows."""

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from rollcall_cli.client import Api, BusyError, ClientError, NotDoneError, UnreachableError
from rollcall_cli.entries import Chain, Filter, exact_body, line, newest_sequence
from rollcall_cli.output import Output, console, text_of
from rollcall_cli.session import Session, complete_set, on_server

IMAGES = {"stream": "images"}
AGAIN = 1.0  # seconds until a broken stream is taken up again
SHOWN = 20  # entries, unless told
Stream = dict[str, str]


@on_server
def events(
    session: Session,
    scale_set: Annotated[
        str | None,
        typer.Argument(
            metavar="[SET]",
            help="The scale set: its name, or its whole id; also one that was deleted.",
            autocompletion=complete_set,
        ),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="The log of images and feeds, instead of a set's.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")
    ] = False,
    last: Annotated[
        int | None,
        typer.Option(
            "--last",
            "-n",
            help="Only the last so many.",
            min=0,
            show_default="20; with --after all",
        ),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(help="Begin after this number; 0 is the beginning.", min=0, metavar="NUMBER"),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            "-t",
            help="Only these types, with * and ?, such as `batch.*`. May be repeated.",
            metavar="PATTERN",
        ),
    ] = None,
    instance: Annotated[
        str | None, typer.Option(help="Only what names this instance.", metavar="ID")
    ] = None,
    upgrade: Annotated[
        str | None, typer.Option(help="Only what belongs to this upgrade.", metavar="ID")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check that no entry is missing or changed; else exit 6."),
    ] = False,
) -> None:
    """Show the event log, or follow it.

    As JSON it is a list of CloudEvents; with --follow one a line, for programs that read on.
    """
    stream = _stream(session, scale_set, images)
    wanted = Filter(types=tuple(types or ()), instance=instance, upgrade=upgrade)
    limit = SHOWN if last is None and after is None else last
    begin = after or 0
    if after is None and not verify and not wanted.is_narrow:
        newest = newest_sequence(lambda number: _has_after(session.api, stream, number))
        begin = max(newest - (limit or 0), 0)
    log = _Log(session.api, stream, begin, Chain(begin) if verify else None)
    found = deque((entry for entry in log.known() if wanted.takes(entry)), maxlen=limit)
    printer = _Printer(session.output, one_by_one=follow)
    printer.put(list(found))
    if follow:
        for entry in log.coming():
            if wanted.takes(entry):
                printer.put([entry])
    if log.chain is not None:
        print(log.chain.words(), file=sys.stderr)


def _stream(session: Session, scale_set: str | None, images: bool) -> Stream:
    if images == (scale_set is not None):
        raise ClientError("whose events? Name a scale set, or give --images")
    return IMAGES if scale_set is None else {"scaleSet": session.find(scale_set)}


def _has_after(api: Api, stream: Stream, number: int) -> bool:
    return bool(api.get("/rollcall/events", {**stream, "after": number, "limit": 1})["value"])


class _Log:
    """A stream of the log, read on from a number; each entry once, in order."""

    def __init__(self, api: Api, stream: Stream, after: int, chain: Chain | None) -> None:
        self._api = api
        self._stream = stream
        self._after = after
        self.chain = chain

    def known(self) -> Iterator[dict[str, Any]]:
        """Yield what there is already. Raises NotDoneError where the chain is broken."""
        for text in self._api.log_texts(after=self._after, **self._stream):
            yield self._taken(text)

    def coming(self) -> Iterator[dict[str, Any]]:
        """Yield what comes, for ever; a broken connection is made again. Raises as `known`."""
        trouble = ""
        while True:
            try:
                for text in self._api.stream(after=self._after, **self._stream):
                    trouble = ""
                    yield self._taken(text)
            except (UnreachableError, BusyError) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    print(f"rollcall: {trouble}", file=sys.stderr)
            time.sleep(AGAIN)

    def _taken(self, text: str) -> dict[str, Any]:
        entry: dict[str, Any] = json.loads(text)
        fault = self.chain.fault(entry, exact_body(text)) if self.chain is not None else None
        if fault is not None:
            raise NotDoneError(f"the log of {entry['stream']} is broken: {fault}")
        self._after = int(entry["sequence"])
        return entry


class _Printer:
    """Prints entries: a line each for a person, one document or one a line for programs."""

    def __init__(self, output: Output, *, one_by_one: bool) -> None:
        self._output = output
        self._one_by_one = one_by_one
        self._console = console()

    def put(self, entries: list[dict[str, Any]]) -> None:
        """Print some entries."""
        if self._output is Output.TABLE:
            now = datetime.now(UTC)
            for entry in entries:
                self._console.print(line(entry, now), soft_wrap=True)
            if not entries and not self._one_by_one:
                self._console.print(Text("no entry", style="dim"))
        elif not self._one_by_one:
            print(text_of({"value": entries}, self._output))
        elif self._output is Output.JSON:
            for entry in entries:
                print(json.dumps(entry, ensure_ascii=False), flush=True)
        else:
            for entry in entries:
                print(f"---\n{text_of(entry, self._output)}", flush=True)
