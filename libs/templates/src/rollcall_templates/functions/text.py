"""Functions on texts. Comparisons of texts within texts have no case, as in Azure."""

import re

from rollcall_templates.functions.arguments import Arguments, Function
from rollcall_templates.functions.encoding import as_text, joined, too_long
from rollcall_templates.hashing import guid, unique_string
from rollcall_templates.limits import MAX_ITEMS, MAX_TEXT
from rollcall_templates.values import FunctionError, Value

_PLACE = re.compile(r"\{\{|\}\}|\{(\d{1,3})(?:,(-?\d{1,4}))?(?::([^{}]*))?\}|[{}]")


def concat(arguments: Arguments) -> Value:
    """Join texts (and numbers), or arrays."""
    if arguments.all_are(list):
        if sum(map(len, arguments.values)) > MAX_ITEMS:
            raise FunctionError(f"the result would have more than {MAX_ITEMS} items")
        return [item for each in arguments.values for item in each]
    for place, value in enumerate(arguments.values):
        if isinstance(value, list | dict) or value is None:
            raise arguments.wrong(place, "a string: all are strings, or all are arrays")
    return joined(as_text(value) for value in arguments.values)


def formatted(arguments: Arguments) -> str:
    """Put arguments into the places `{0}`, `{1:N2}` … of a text; `{{` is a brace."""

    length = len(arguments.text(0))

    def fill(match: re.Match[str]) -> str:
        nonlocal length
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] is None:
            raise FunctionError("its format has a brace by itself: write it twice, as {{ or }}")
        place = int(match[1]) + 1
        if place >= len(arguments):
            raise FunctionError(
                f"its format names {{{match[1]}}}, and there are {len(arguments) - 1} arguments "
                "to put in"
            )
        text = _in_form(arguments.values[place], match[3])
        width = int(match[2] or 0)
        length += max(len(text), abs(width)) - len(match[0])
        if length > MAX_TEXT:
            raise too_long()
        return text.ljust(-width) if width < 0 else text.rjust(width)

    return _PLACE.sub(fill, arguments.text(0))


def _in_form(value: Value, form: str | None) -> str:
    if not form:
        return as_text(value)
    match = re.fullmatch(r"([NnDdXxFf])(\d{0,2})", form)
    if match is None or isinstance(value, bool) or not isinstance(value, int | float):
        raise FunctionError(
            f"its format asks for '{form[:20]}': N, D, F and X of numbers are known"
        )
    letter, digits = match[1].upper(), int(match[2] or 0)
    if letter in "NF":
        places = digits if match[2] else 2
        return f"{value:,.{places}f}" if letter == "N" else f"{value:.{places}f}"
    if not isinstance(value, int):
        raise FunctionError(f"its format asks for '{form}', which only whole numbers have")
    if letter == "D":
        return f"{'-' if value < 0 else ''}{abs(value):0{digits or 1}d}"
    return format(value & 0xFFFFFFFFFFFFFFFF, match[1]).rjust(digits, "0")


def index_of(arguments: Arguments) -> int:
    """Return where something first is, from 0; -1 for nowhere."""
    return _index(arguments, last=False)


def last_index_of(arguments: Arguments) -> int:
    """Return where something last is, from 0; -1 for nowhere."""
    return _index(arguments, last=True)


def _index(arguments: Arguments, *, last: bool) -> int:
    if isinstance(arguments.values[0], list):
        items = arguments.values[0]
        places = [place for place, each in enumerate(items) if each == arguments.values[1]]
        return places[-1 if last else 0] if places else -1
    text, wanted = (arguments.text(place).lower() for place in (0, 1))
    return text.rfind(wanted) if last else text.find(wanted)


def pad_left(arguments: Arguments) -> str:
    """Return a text of at least so many characters, filled up on its left."""
    text, width = as_text(arguments.values[0]), arguments.whole(1)
    filler = arguments.text(2) if len(arguments) > 2 else " "
    if not 0 <= width <= MAX_TEXT:
        raise FunctionError(f"its argument 2 must be from 0 to {MAX_TEXT}")
    if len(filler) != 1:
        raise FunctionError("its argument 3 must be one character")
    return text.rjust(width, filler)


def replace(arguments: Arguments) -> str:
    """Return a text with every occurrence of another replaced."""
    text, old, new = arguments.texts()
    if not old:
        raise FunctionError("its argument 2 must not be empty")
    if len(text) + text.count(old) * (len(new) - len(old)) > MAX_TEXT:
        raise too_long()
    return text.replace(old, new)


def split(arguments: Arguments) -> list[str]:
    """Return the parts of a text between one or several delimiters."""
    text, delimiters = arguments.text(0), arguments.values[1]
    if isinstance(delimiters, str):
        delimiters = [delimiters]
    if not isinstance(delimiters, list) or not all(isinstance(each, str) for each in delimiters):
        raise arguments.wrong(1, "a string or an array of strings")
    if not all(delimiters) or not delimiters:
        return [text]
    longest = sorted(delimiters, key=len, reverse=True)
    return re.split("|".join(re.escape(each) for each in longest), text)


def join(arguments: Arguments) -> str:
    """Return the items of an array as one text, with a delimiter between them."""
    return joined((as_text(each) for each in arguments.array(0)), arguments.text(1))


def substring(arguments: Arguments) -> str:
    """Return a part of a text: from where, and how long."""
    text, start = arguments.text(0), arguments.whole(1)
    length = arguments.whole(2, default=max(len(text) - start, 0))
    if start < 0 or length < 0 or start + length > len(text):
        raise FunctionError(
            f"it asks for {length} characters from {start}, and the text has {len(text)}"
        )
    return text[start : start + length]


TABLE = (
    Function("concat", 1, None, concat),
    Function("format", 1, None, formatted),
    Function("toLower", 1, 1, lambda a: a.text(0).lower()),
    Function("toUpper", 1, 1, lambda a: a.text(0).upper()),
    Function("trim", 1, 1, lambda a: a.text(0).strip()),
    Function("startsWith", 2, 2, lambda a: a.text(0).lower().startswith(a.text(1).lower())),
    Function("endsWith", 2, 2, lambda a: a.text(0).lower().endswith(a.text(1).lower())),
    Function("indexOf", 2, 2, index_of),
    Function("lastIndexOf", 2, 2, last_index_of),
    Function("padLeft", 2, 3, pad_left),
    Function("replace", 3, 3, replace),
    Function("split", 2, 2, split),
    Function("join", 2, 2, join),
    Function("substring", 2, 3, substring),
    Function("uniqueString", 1, None, lambda a: unique_string(*a.texts())),
    Function("guid", 1, None, lambda a: guid(*a.texts())),
)
