"""What expressions come to: lazily, within a budget, with every error at its place.

Nothing is asked of the world here: where a value needs a deployed resource, `Missing` says which,
and the caller finds it out and evaluates again.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from rollcall_templates.errors import Path, TemplateError, short
from rollcall_templates.expressions import (
    Access,
    Call,
    Expression,
    Number,
    Step,
    Text,
    is_expression,
    literal,
    parse,
    show,
)
from rollcall_templates.functions import PURE
from rollcall_templates.limits import MAX_COPIES, MAX_GIVEN, MAX_NAME, MAX_NESTING, Budget
from rollcall_templates.secure import has_own_scope
from rollcall_templates.surroundings import Surroundings
from rollcall_templates.template import Template
from rollcall_templates.values import FunctionError, Value, is_whole, kind_of, member


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A deployed resource that a value depends on."""

    id: str
    api_version: str | None

    @property
    def key(self) -> tuple[str, str | None]:
        """Return what two spellings of one request have in common."""
        return self.id.lower(), self.api_version


Known: TypeAlias = Mapping[tuple[str, str | None], Value]  # documents by their request's key


class Missing(Exception):
    """A value depends on a resource whose document is not known yet."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.id)
        self.request = request


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where an expression stands: in which rounds of which loops, and whether in a function."""

    copies: Mapping[str, int] = field(default_factory=dict)  # by the loop's name in lower case
    loop: str | None = None  # the loop that copyIndex() without a name means
    arguments: Mapping[str, Value] | None = None  # of the template's own function
    runtime: bool = False  # deployed resources may be asked about

    def within(self, loop: str, index: int, *, is_default: bool) -> "Frame":
        """Return the frame of one round of a loop."""
        name = loop.lower()
        return replace(
            self,
            copies={**self.copies, name: index},
            loop=name if is_default or self.loop is None else self.loop,
        )


TOP = Frame()
Lookup = Callable[[str, "str | None"], "list[Request]"]


class Evaluator:
    """Evaluates the values of one template.

    `parameter` gives a parameter's value; `lookup` finds what `reference` names; `known` has the
    documents of deployed resources. `tainted` says whether a secure parameter was read since it
    was last set to false; `cover`, if there is one, gives what then stands in the value's place.
    """

    def __init__(
        self,
        template: Template,
        surroundings: Surroundings,
        parameter: "Callable[[Evaluator, str], Value]",
        *,
        budget: Budget | None = None,
        known: Known | None = None,
        contextual: "Mapping[str, Contextual] | None" = None,
    ) -> None:
        self.template = template
        self.surroundings = surroundings
        self.budget = budget or Budget()
        self.known = known or {}
        self.tainted = False
        self.cover: Callable[[Value], Value] | None = None
        self.lookup: Lookup | None = None
        self._parameter = parameter
        self._contextual = contextual or {}
        self._variables: dict[str, tuple[Value, bool]] = {}
        self._failed: dict[str, TemplateError] = {}  # what has gone wrong once goes wrong again
        self._open: list[str] = []  # variables that are being evaluated
        self._trees: dict[str, Expression] = {}

    # Values of a document

    def document(
        self, value: Any, frame: Frame, path: Path, *, partial: bool = False, depth: int = 0
    ) -> Value:
        """Return a value of the template with its expressions evaluated. Raises TemplateError.

        With `partial`, an expression that depends on what is not known stays as it is written;
        else it raises Missing.
        """
        if depth > MAX_NESTING:
            raise TemplateError(f"the template is nested more than {MAX_NESTING} levels", path=path)
        self.budget.spend(1 + len(value) // 100 if isinstance(value, str) else 1)
        if isinstance(value, str):
            try:
                return self._covered(value, frame, path)
            except Missing:
                if not partial:
                    raise
                return value
        if isinstance(value, list):
            return [
                self.document(each, frame, (*path, place), partial=partial, depth=depth + 1)
                for place, each in enumerate(value)
            ]
        if isinstance(value, Mapping):
            return self._object(value, frame, path, partial=partial, depth=depth + 1)
        return value

    def _object(
        self, value: Mapping[str, Any], frame: Frame, path: Path, *, partial: bool, depth: int
    ) -> dict[str, Value]:
        result: dict[str, Value] = {}
        for key, item in value.items():
            if key == "copy" and _is_loops(item):
                for place, loop in enumerate(item):
                    at = (*path, "copy", place)
                    name, values = self.loop(loop, frame, at, partial=partial, depth=depth)
                    result[name] = values
                continue
            name = key
            if key.lower() == "template" and has_own_scope(value):
                result[key] = item  # of a deployment in there: it has parameters of its own
                continue
            if is_expression(key):
                name = self.expect(key, frame, (*path, key), str, "a string")
            result[name] = self.document(item, frame, (*path, key), partial=partial, depth=depth)
        return result

    def loop(
        self,
        loop: Mapping[str, Any],
        frame: Frame,
        path: Path,
        *,
        partial: bool = False,
        depth: int = 0,
        body: str = "input",
    ) -> tuple[str, list[Value]]:
        """Return the name and the values of a loop within an object."""
        name = self.expect(loop.get("name"), frame, (*path, "name"), str, "the loop's name")
        if body not in loop:
            raise TemplateError(f"the loop '{name}' has no '{body}'", path=path)
        values = [
            self.document(
                loop[body],
                frame.within(name, index, is_default=False),
                (*path, body),
                partial=partial,
                depth=depth,
            )
            for index in range(self.count(loop, frame, path))
        ]
        return name, values

    def count(self, loop: Mapping[str, Any], frame: Frame, path: Path) -> int:
        """Return how many rounds a loop has. Raises TemplateError."""
        if "count" not in loop:
            raise TemplateError("the loop has no 'count'", path=path)
        cover, self.cover = self.cover, None  # how many there are is seen anyway
        try:
            count = self.document(loop["count"], replace(frame, runtime=False), (*path, "count"))
        finally:
            self.cover = cover
        if isinstance(count, str) and count.isascii() and count.isdigit() and len(count) < 10:
            count = int(count)
        if not is_whole(count) or not 0 <= count <= MAX_COPIES:
            raise TemplateError(
                f"the count of a loop must be an integer from 0 to {MAX_COPIES}",
                path=(*path, "count"),
            )
        return int(count)

    def expect(self, value: Any, frame: Frame, path: Path, kind: type[Any], what: str) -> Any:
        """Return a value that must be of a kind. Raises TemplateError."""
        found = self.document(value, frame, path)
        if not isinstance(found, kind) or (kind is str and not found):
            raise TemplateError(f"{path[-1]} must be {what}, and is {kind_of(found)}", path=path)
        if isinstance(found, str) and len(found) > MAX_NAME:
            raise TemplateError(
                f"{path[-1]} has {len(found)} characters, and may have {MAX_NAME}", path=path
            )
        return found

    def _covered(self, text: str, frame: Frame, path: Path) -> Value:
        """Return what a text stands for; what is made of a secure parameter may be covered.

        What the text needs, such as a variable, is evaluated as it is.
        """
        cover, self.cover = self.cover, None
        before, self.tainted = self.tainted, False
        try:
            value = self.text(text, frame, path)
            return cover(value) if cover is not None and self.tainted else value
        finally:
            self.tainted = self.tainted or before
            self.cover = cover

    def text(self, text: str, frame: Frame, path: Path) -> Value:
        """Return what a text of the template stands for."""
        if not is_expression(text):
            return literal(text)
        try:
            node = self.tree(text)
            value = self.value(node, frame)
            if not (isinstance(node, Call) and node.name.lower() in PURE):  # counted already
                self.budget.take(value)
        except TemplateError as error:
            if error.path:  # it happened elsewhere, in a variable
                raise
            raise TemplateError(
                f"{error.message}. The expression is {short(text)}",
                path=path,
                code=error.code,
                expression=text,
                column=error.column,
            ) from error
        except RecursionError:
            raise TemplateError(
                "the expression depends on too many others, one within the other",
                path=path,
                expression=text,
            ) from None
        return value

    def tree(self, text: str) -> Expression:
        """Return an expression's tree; each text is read once."""
        found = self._trees.get(text)
        if found is None:
            found = self._trees[text] = parse(text)
        return found

    # Values of an expression

    def value(self, node: Expression, frame: Frame) -> Value:
        """Return what a tree comes to. Raises TemplateError and Missing."""
        match node:
            case Text(value) | Number(value):
                return value
            case Call():
                return self._call(node, frame)
            case Access(target, steps):
                value = self.value(target, frame)
                for place, step in enumerate(steps):
                    if value is None and step.safe:
                        return None
                    try:
                        value = self._step(value, step, frame)
                    except FunctionError as error:
                        before = show(Access(target, steps[:place])) if place else show(target)
                        raise TemplateError(f"{before[1:-1]}: {error}") from error
                return value

    def _step(self, value: Value, step: Step, frame: Frame) -> Value:
        key = step.key if isinstance(step.key, str) else self.value(step.key, frame)
        match value, key:
            case dict(), str():
                there, found = member(value, key)
                if there or step.safe:
                    return found
                known = ", ".join(sorted(value)[:20]) or "none"
                raise FunctionError(
                    f"the property '{key[:100]}' does not exist; there are {short(known)}"
                )
            case list(), int() if not isinstance(key, bool):
                if 0 <= key < len(value):
                    return value[key]
                if step.safe:
                    return None
                raise FunctionError(f"the index {key} is outside the array of {len(value)} items")
            case list(), _:
                raise FunctionError("an array has indexes, from 0, and no properties")
        raise FunctionError(f"this is {kind_of(value)}, and nothing is inside it by that name")

    def _call(self, node: Call, frame: Frame) -> Value:
        self.budget.call()
        name = node.name.lower()
        try:
            if (lazy := _LAZY.get(name)) is not None:
                return lazy(self, node.arguments, frame)
            values = [self.value(each, frame) for each in node.arguments]
            if sum(len(each) for each in values if isinstance(each, str)) > MAX_GIVEN:
                raise FunctionError(f"it was given more than {MAX_GIVEN} characters")
            if (pure := PURE.get(name)) is not None:
                result = pure.call(values)
                self.budget.take(result)
                return result
            if (contextual := self._contextual.get(name)) is not None:
                return contextual(self, values, frame)
        except FunctionError as error:
            raise TemplateError(f"{node.name}(): {error}") from error
        if name in self.template.functions:
            return self._own_function(name, values, frame)
        raise TemplateError(f"there is no function '{node.name[:100]}'{self._meant(name)}")

    def _meant(self, name: str) -> str:
        known = {each.lower(): each for each in (*(f.name for f in PURE.values()), *_LAZY)}
        known |= {each: each for each in self._contextual}
        known |= {each: function.name for each, function in self.template.functions.items()}
        close = difflib.get_close_matches(name[:100], list(known), n=1)
        return f"; did you mean {known[close[0]]}?" if close else ""

    def _own_function(self, name: str, values: Sequence[Value], frame: Frame) -> Value:
        function = self.template.functions[name]
        if frame.arguments is not None:
            raise TemplateError("a function of the template cannot call another of them")
        if len(values) != len(function.parameters):
            raise TemplateError(
                f"{function.name}() takes {len(function.parameters)} arguments, and was given "
                f"{len(values)}"
            )
        names = (each.lower() for each in function.parameters)
        inner = Frame(arguments=dict(zip(names, values, strict=True)))
        return self.document(function.output, inner, function.path)

    # Parameters and variables

    def parameter(self, name: str, frame: Frame) -> Value:
        """Return a parameter's value, of the template or of its own function around it."""
        if frame.arguments is not None:
            if name.lower() not in frame.arguments:
                known = ", ".join(frame.arguments) or "none"
                raise TemplateError(f"the function has no parameter '{name}'; it has {known}")
            return frame.arguments[name.lower()]
        return self._parameter(self, name)

    def variable(self, name: str, frame: Frame) -> Value:
        """Return a variable's value. Raises TemplateError for a circle."""
        if frame.arguments is not None:
            raise TemplateError("a function of the template has no variables")
        key = name.lower()
        if key not in self._variables:
            self._prepare(key)
        value, tainted = self._variables.get(key) or self._evaluated(key, name)
        self.tainted = self.tainted or tainted
        return value

    def _evaluated(self, key: str, name: str) -> tuple[Value, bool]:
        source = self._source(key)
        if source is None:
            close = difflib.get_close_matches(key, [each.lower() for each in self._names()], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TemplateError(f"the template has no variable '{name[:100]}'{hint}")
        if key in self._open:
            circle = " -> ".join([*self._open[self._open.index(key) :], key])
            raise TemplateError(f"variables depend on each other in a circle: {circle}")
        if key in self._failed:
            raise self._failed[key]
        self._open.append(key)
        before, self.tainted = self.tainted, False
        try:
            raw, path, is_loop = source
            value = self.loop(raw, TOP, path)[1] if is_loop else self.document(raw, TOP, path)
            self._variables[key] = value, self.tainted
        except TemplateError as error:
            self._failed[key] = error
            raise
        finally:
            self._open.pop()
            self.tainted = before
        return self._variables[key]

    def _names(self) -> list[str]:
        named = [str(each["name"]) for each in self._loops()]
        return [*(name for name in self.template.variables if name != "copy"), *named]

    def _loops(self) -> list[Mapping[str, Any]]:
        loops = self.template.variables.get("copy")
        return loops if isinstance(loops, list) and _is_loops(loops) else []

    def _source(self, key: str) -> tuple[Any, Path, bool] | None:
        """Return how a variable is written, where, and whether it is a loop."""
        for place, loop in enumerate(self._loops()):
            if str(loop["name"]).lower() == key:
                return loop, ("variables", "copy", place), True
        for name, raw in self.template.variables.items():
            if name.lower() == key and not (name == "copy" and _is_loops(raw)):
                return raw, ("variables", name), False
        return None

    def _prepare(self, key: str) -> None:
        """Evaluate first what a variable depends on: a long chain must not go deep.

        What goes wrong on the way is left for the evaluation itself, which may never need it.
        """
        done: set[str] = set(self._variables) | set(self._open)
        waiting = [(key, False)]
        while waiting:
            each, seen = waiting.pop()
            source = self._source(each)
            if source is None or (each in done and not seen):
                continue
            if seen:
                if each != key:
                    try:
                        self._evaluated(each, each)
                    except (TemplateError, Missing):
                        continue
                continue
            done.add(each)
            waiting.append((each, True))
            waiting.extend((name, False) for name in self._named(source[0]) if name not in done)

    def _named(self, raw: Any) -> list[str]:
        """Return the variables that a value names in plain words."""
        found: list[str] = []
        for call in self.calls(raw):
            if call.name.lower() == "variables" and call.arguments:
                first = call.arguments[0]
                if isinstance(first, Text):
                    found.append(first.value.lower())
        return found

    def calls(self, raw: Any) -> list[Call]:
        """Return every call in the expressions of a value; what cannot be read has none."""
        found: list[Call] = []
        waiting = [raw]
        while waiting:
            each = waiting.pop()
            match each:
                case str():
                    if is_expression(each):
                        try:
                            waiting.append(self.tree(each))
                        except TemplateError:
                            continue  # whoever evaluates it says what is wrong
                case Mapping():
                    waiting.extend((*each.keys(), *each.values()))
                case list():
                    waiting.extend(each)
                case Call():
                    found.append(each)
                    waiting.extend(each.arguments)
                case Access():
                    waiting.append(each.target)
                    waiting.extend(step.key for step in each.steps if not isinstance(step.key, str))
        return found


def _is_loops(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, Mapping) and "name" in each and "count" in each for each in value)
    )


Contextual = Callable[[Evaluator, Sequence[Value], Frame], Value]
Lazy = Callable[[Evaluator, Sequence[Expression], Frame], Value]


def _flag(evaluator: Evaluator, node: Expression, frame: Frame, place: int) -> bool:
    value = evaluator.value(node, frame)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise FunctionError(f"its argument {place} must be a boolean, and is {kind_of(value)}")
    return value


def _if(evaluator: Evaluator, arguments: Sequence[Expression], frame: Frame) -> Value:
    if len(arguments) != 3:
        raise FunctionError(f"it takes 3 arguments, and was given {len(arguments)}")
    chosen = arguments[1 if _flag(evaluator, arguments[0], frame, 1) else 2]
    return evaluator.value(chosen, frame)


def _and(evaluator: Evaluator, arguments: Sequence[Expression], frame: Frame) -> Value:
    _some(arguments)
    return all(_flag(evaluator, each, frame, place + 1) for place, each in enumerate(arguments))


def _or(evaluator: Evaluator, arguments: Sequence[Expression], frame: Frame) -> Value:
    _some(arguments)
    return any(_flag(evaluator, each, frame, place + 1) for place, each in enumerate(arguments))


def _coalesce(evaluator: Evaluator, arguments: Sequence[Expression], frame: Frame) -> Value:
    _some(arguments)
    for each in arguments:
        value = evaluator.value(each, frame)
        if value is not None:
            return value
    return None


def _some(arguments: Sequence[Expression]) -> None:
    if not arguments:
        raise FunctionError("it takes 1 or more arguments, and was given 0")


_LAZY: Mapping[str, Lazy] = {"if": _if, "and": _and, "or": _or, "coalesce": _coalesce}
