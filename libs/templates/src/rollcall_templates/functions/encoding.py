"""Functions between texts and what they stand for: JSON, base64, URIs."""

import base64
import binascii
import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn
from urllib.parse import quote, unquote, urljoin

from rollcall_templates.functions.arguments import Arguments, Function
from rollcall_templates.limits import MAX_TEXT, fits_in
from rollcall_templates.values import FunctionError, Value, sound

_DATA_URI = re.compile(r"data:(?P<type>[^,;]*)(?P<rest>(;[^,;]*)*),(?P<data>.*)", re.DOTALL)


def as_text(value: Value) -> str:
    """Return a value as a text: as itself, as .NET writes it, or as JSON. Raises FunctionError."""
    match value:
        case str():
            return value
        case bool():
            return "True" if value else "False"
        case None:
            return ""
        case int():
            return str(value)
    if not fits_in(value, MAX_TEXT):
        raise too_long()
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def joined(parts: Iterable[str], delimiter: str = "") -> str:
    """Return texts as one, measured before they are put together. Raises FunctionError."""
    found: list[str] = []
    length = -len(delimiter)
    for part in parts:
        length += len(delimiter) + len(part)
        if length > MAX_TEXT:
            raise too_long()
        found.append(part)
    return delimiter.join(found)


def too_long() -> FunctionError:
    """Return what to raise for a result that must not be made."""
    return FunctionError(f"the result would be longer than {MAX_TEXT} characters")


def parse_json(arguments: Arguments) -> Value:
    """Return the value that a JSON text stands for."""
    try:
        found = json.loads(arguments.text(0), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise FunctionError("its argument 1 is not valid JSON") from None
    return sound(found)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def decoded(text: str) -> str:
    """Return the text that base64 stands for. Raises FunctionError."""
    try:
        padded = text + "=" * (-len(text) % 4)
        found = base64.b64decode(padded, validate=True).decode()
    except (ValueError, binascii.Error):
        raise FunctionError("its argument is not the base64 of a text") from None
    return str(sound(found))


def data_uri(arguments: Arguments) -> str:
    """Return a text as a data URI."""
    data = base64.b64encode(as_text(arguments.values[0]).encode()).decode()
    return f"data:text/plain;charset=utf8;base64,{data}"


def data_uri_to_string(arguments: Arguments) -> str:
    """Return the text of a data URI."""
    match = _DATA_URI.fullmatch(arguments.text(0))
    if match is None:
        raise FunctionError("its argument 1 must be a data URI, such as data:text/plain,Hello")
    is_base64 = match["rest"].lower().endswith(";base64")
    return decoded(match["data"]) if is_base64 else str(sound(unquote(match["data"])))


def uri(arguments: Arguments) -> str:
    """Return an absolute URI: a relative one from its base."""
    base, relative = arguments.texts()
    try:
        return urljoin(base, relative)
    except ValueError:
        raise FunctionError("its arguments do not make a URI") from None


def base64_to_json(arguments: Arguments) -> Value:
    """Return the JSON value in base64."""
    return parse_json(Arguments([decoded(arguments.text(0))]))


def to_base64(arguments: Arguments) -> str:
    """Return a text in base64."""
    return base64.b64encode(arguments.text(0).encode()).decode()


def shown_as_json(value: Any) -> str:
    """Return what `string` gives: a value as text, booleans and null too."""
    return as_text(value)


TABLE = (
    Function("string", 1, 1, lambda a: shown_as_json(a.values[0])),
    Function("json", 1, 1, parse_json),
    Function("base64", 1, 1, to_base64),
    Function("base64ToString", 1, 1, lambda a: decoded(a.text(0))),
    Function("base64ToJson", 1, 1, base64_to_json),
    Function("dataUri", 1, 1, data_uri),
    Function("dataUriToString", 1, 1, data_uri_to_string),
    Function("uri", 2, 2, uri),
    Function("uriComponent", 1, 1, lambda a: quote(a.text(0), safe="-_.~")),
    Function("uriComponentToString", 1, 1, lambda a: sound(unquote(a.text(0)))),
)
