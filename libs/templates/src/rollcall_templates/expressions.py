"""The expressions between `[` and `]`: read into a tree, and written out again.

    expression = (text | number | call) { "." name | "[" expression "]" }
    call       = name { "." name } "(" [ expression { "," expression } ] ")"

A text stands in single quotes, where two of them mean one. `.?name` and `[?…]` give null for what
is not there. A value that begins with `[[` is no expression, but a text that begins with `[`.
"""

import re
from dataclasses import dataclass
from typing import TypeAlias

from rollcall_templates.errors import TemplateError
from rollcall_templates.limits import MAX_EXPRESSION, MAX_NESTING

INT_MIN, INT_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Text:
    """A text in quotes."""

    value: str


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number."""

    value: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments; `name` as it is written, such as `toLower` or `my.name`."""

    name: str
    arguments: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Step:
    """One step into a value: a member by name, or an item by what an expression gives."""

    key: "str | Expression"
    safe: bool = False  # null for what is not there


@dataclass(frozen=True, slots=True)
class Access:
    """What is inside a value."""

    target: "Text | Number | Call"
    steps: tuple[Step, ...]


Expression: TypeAlias = Text | Number | Call | Access

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>[+-]?[0-9]+)|(?P<name>[A-Za-z_$][\w$-]*)"
    r"|(?P<mark>\.\?|\[\?|[().,\[\]]))",
    re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_$][\w$-]*")


def is_expression(text: str) -> bool:
    """Say whether a value of a template is an expression."""
    return text.startswith("[") and text.endswith("]") and not text.startswith("[[")


def literal(text: str) -> str:
    """Return what a value that is no expression means."""
    return text[1:] if text.startswith("[[") else text


def escaped(text: str) -> str:
    """Return how a template writes a text, so that it is not taken for an expression."""
    return f"[{text}" if is_expression(text) or text.startswith("[[") else text


def parse(text: str) -> Expression:
    """Return the tree of an expression, which is given with its brackets. Raises TemplateError."""
    if len(text) > MAX_EXPRESSION:
        raise TemplateError(
            f"the expression has {len(text)} characters, and may have {MAX_EXPRESSION}: put parts "
            "of it into variables",
            expression=text,
        )
    parser = _Parser(text)
    found = parser.expression(0)
    parser.end()
    return found


class _Parser:
    """Reads tokens from left to right; columns count from 1 at the opening bracket."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 1
        self._stop = len(text) - 1
        self._kind = ""
        self._token = ""
        self._start = 1
        self._next()

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._place, self._stop)
        if match is None:
            rest = self._text[self._place : self._stop]
            self._start = self._place + len(rest) - len(rest.lstrip())
            self._kind, self._token = ("end", "") if not rest.strip() else ("bad", rest.strip()[0])
            return
        self._kind = match.lastgroup or ""
        self._token = match[self._kind]
        self._start = match.start(self._kind)
        self._place = match.end()

    def _fail(self, expected: str) -> TemplateError:
        if self._token == "'":
            found = "a quote that is never closed"
        elif self._kind == "end":
            found = "the end"
        else:
            found = f"'{self._token[:50]}'"
        return TemplateError(
            f"expected {expected} at character {self._start + 1} of the expression, but found "
            f"{found}",
            expression=self._text,
            column=self._start + 1,
        )

    def _mark(self, mark: str, expected: str = "") -> None:
        if self._token != mark or self._kind != "mark":
            raise self._fail(expected or f"'{mark}'")
        self._next()

    def end(self) -> None:
        """Take nothing more. Raises TemplateError."""
        if self._kind != "end":
            raise self._fail("the end of the expression, '.' or '['")

    def expression(self, depth: int) -> Expression:
        """Return what comes next."""
        if depth > MAX_NESTING:
            raise TemplateError(
                f"the expression is nested more than {MAX_NESTING} levels deep: put parts of it "
                "into variables",
                expression=self._text,
                column=self._start + 1,
            )
        target = self._primary(depth)
        steps: list[Step] = []
        while self._kind == "mark" and self._token in (".", ".?", "[", "[?"):
            steps.append(self._step(depth))
        return Access(target, tuple(steps)) if steps else target

    def _step(self, depth: int) -> Step:
        mark, safe = self._token, self._token.endswith("?")
        self._next()
        if mark.startswith("."):
            if self._kind != "name":
                raise self._fail("the name of a property")
            name = self._token
            self._next()
            return Step(name, safe)
        key = self.expression(depth + 1)
        self._mark("]")
        # `x['name']` is `x.name`: one tree for both, so that writing it out and reading it again
        # gives the same.
        if isinstance(key, Text) and _NAME.fullmatch(key.value):
            return Step(key.value, safe)
        return Step(key, safe)

    def _primary(self, depth: int) -> Text | Number | Call:
        kind, token = self._kind, self._token
        match kind:
            case "text":
                self._next()
                return Text(token[1:-1].replace("''", "'"))
            case "number":
                value = int(token) if len(token) <= 20 else INT_MAX + 1
                if not INT_MIN <= value <= INT_MAX:
                    raise self._fail("a whole number of 64 bits")
                self._next()
                return Number(value)
            case "name":
                return self._call(depth)
        raise self._fail("a function, a text in single quotes or a number")

    def _call(self, depth: int) -> Call:
        name = self._token
        self._next()
        while self._kind == "mark" and self._token == ".":
            self._next()
            if self._kind != "name":
                raise self._fail("the name of a function")
            name += f".{self._token}"
            self._next()
        self._mark("(", f"'(' after '{name[:50]}', which must be a function")
        arguments: list[Expression] = []
        if not (self._kind == "mark" and self._token == ")"):
            arguments.append(self.expression(depth + 1))
            while self._kind == "mark" and self._token == ",":
                self._next()
                arguments.append(self.expression(depth + 1))
        self._mark(")", "',' or ')'")
        return Call(name, tuple(arguments))


def show(expression: Expression) -> str:
    """Return an expression as text, with its brackets."""
    return f"[{_show(expression)}]"


def _show(expression: Expression) -> str:
    match expression:
        case Text(value):
            return "'" + value.replace("'", "''") + "'"
        case Number(value):
            return str(value)
        case Call(name, arguments):
            return f"{name}({', '.join(_show(each) for each in arguments)})"
        case Access(target, steps):
            return _show(target) + "".join(_show_step(step) for step in steps)


def _show_step(step: Step) -> str:
    if isinstance(step.key, str):
        return f".{'?' if step.safe else ''}{step.key}"
    return f"[{'?' if step.safe else ''}{_show(step.key)}]"
