"""JSON as template files have it: comments, names without quotes, texts of several lines.

az puts a template file as it is into its request, so a request's body may be such JSON too. Each
value knows where it begins, for messages with a line and a column.
"""

import json
import math
import re
from typing import Any

from rollcall_templates.errors import Path, TemplateError

MAX_DEPTH = 64
MAX_DIGITS = 40  # of a number
_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'', re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*", re.ASCII)
_WORDS = {"true": True, "false": False, "null": None}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class JsonError(ValueError):
    """A text is not JSON, not even such; the message names line and column."""


def loads(text: str) -> Any:
    """Return the value of a text. Raises JsonError."""
    return _Reader(text).whole()


def locate(text: str, path: Path) -> tuple[int, int]:
    """Return line and column, from 1, of the value at a path, or of the nearest around it."""
    reader = _Reader(text, path)
    try:
        reader.whole()
    except JsonError:
        return position(text, reader.found)
    return position(text, reader.found)


def position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of a place in a text."""
    line = text.count("\n", 0, offset) + 1
    return line, offset - (text.rfind("\n", 0, offset) + 1) + 1


class _Reader:
    """Reads a text from left to right; notes where the value at one path begins."""

    def __init__(self, text: str, path: Path = ()) -> None:
        self._text = text
        self._place = 0
        self._path = path
        self.found = 0

    def whole(self) -> Any:
        """Return the one value of the text."""
        value = self._value(0, self._path)
        self._skip()
        if self._place < len(self._text):
            raise self._fail("nothing after the value")
        return value

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._place)
        if match is not None:
            self._place = match.end()

    def _fail(self, expected: str) -> JsonError:
        line, column = position(self._text, self._place)
        found = self._text[self._place : self._place + 20].partition("\n")[0]
        shown = repr(found) if found else "the end"
        return JsonError(f"line {line}, column {column}: expected {expected}, found {shown}")

    def _value(self, depth: int, path: Path | None) -> Any:
        """Return the value that comes next; `path` is what is left of the way to what is sought."""
        self._skip()
        if path is not None:
            self.found = self._place
        if depth > MAX_DEPTH:
            raise self._fail(f"at most {MAX_DEPTH} levels of nesting")
        following = self._text[self._place : self._place + 1]
        if following == "{":
            return self._object(depth, path)
        if following == "[":
            return self._array(depth, path)
        if following in ('"', "'"):
            return self._string()
        if match := _NUMBER.match(self._text, self._place):
            return self._number(match)
        match = _NAME.match(self._text, self._place)
        if match is None or match[0] not in _WORDS:
            raise self._fail("a value")
        self._place = match.end()
        return _WORDS[match[0]]

    def _object(self, depth: int, path: Path | None) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._place += 1
        while not self._ends("}"):
            match = _NAME.match(self._text, self._place)
            if match is not None:
                key = match[0]
                self._place = match.end()
            else:
                key = self._string()
            self._skip()
            if self._text[self._place : self._place + 1] != ":":
                raise self._fail("':' after a name")
            self._place += 1
            is_way = bool(path) and path is not None and path[0] == key
            result[key] = self._value(depth + 1, path[1:] if is_way and path else None)
            self._separate("}")
        return result

    def _array(self, depth: int, path: Path | None) -> list[Any]:
        result: list[Any] = []
        self._place += 1
        while not self._ends("]"):
            is_way = bool(path) and path is not None and path[0] == len(result)
            result.append(self._value(depth + 1, path[1:] if is_way and path else None))
            self._separate("]")
        return result

    def _ends(self, closing: str) -> bool:
        self._skip()
        if self._text[self._place : self._place + 1] != closing:
            return False
        self._place += 1
        return True

    def _separate(self, closing: str) -> None:
        self._skip()
        following = self._text[self._place : self._place + 1]
        if following == ",":
            self._place += 1
        elif following != closing:
            raise self._fail(f"',' or '{closing}'")

    def _string(self) -> str:
        match = _TEXT.match(self._text, self._place)
        if match is None:
            raise self._fail("a name or a text in quotes")
        raw = match[1] if match[1] is not None else match[2]
        if "\\" in raw:
            raw = _ESCAPE.sub(_unescaped, raw)
            try:
                raw = raw.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise self._fail("no half of a surrogate pair") from None
        if "\0" in raw or any("\ud800" <= each <= "\udfff" for each in raw):
            raise self._fail("a text without NUL and half surrogate pairs")
        self._place = match.end()
        return raw

    def _number(self, match: re.Match[str]) -> int | float:
        if len(match[0]) > MAX_DIGITS:
            raise self._fail(f"a number of at most {MAX_DIGITS} characters")
        value = float(match[0]) if match[1] or match[2] else int(match[0])
        if not math.isfinite(value):
            raise self._fail("a number that is finite")
        self._place = match.end()
        return value


def _unescaped(match: re.Match[str]) -> str:
    letter = match[1]
    if len(letter) == 5:
        return chr(int(letter[1:], 16))
    return _ESCAPES.get(letter, letter)


def as_template_error(error: JsonError) -> TemplateError:
    """Return what to raise for a template that is no JSON."""
    return TemplateError(f"the template is not JSON: {error}")


def dumps(value: Any) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
