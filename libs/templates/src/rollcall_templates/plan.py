"""The resources that a template amounts to: loops unrolled, conditions asked, in order.

What stands in a resource is evaluated when its turn comes, for it may ask about resources that are
deployed before it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rollcall_templates import ids
from rollcall_templates.context import CONTEXT, place_of
from rollcall_templates.errors import Path, TemplateError, dotted
from rollcall_templates.evaluate import (
    TOP,
    Evaluator,
    Frame,
    Known,
    Missing,
    Request,
)
from rollcall_templates.expressions import is_expression
from rollcall_templates.limits import MAX_BODY, MAX_CALLS, MAX_RESOURCES, Budget, fits_in
from rollcall_templates.nested import nested_properties
from rollcall_templates.parameters import TYPES, Parameters, fits, unknown
from rollcall_templates.secure import MASK, SECURE, secured, shown_body
from rollcall_templates.surroundings import Surroundings
from rollcall_templates.template import RawResource, Template
from rollcall_templates.values import FunctionError, Value, kind_of

DEPLOYMENTS = "microsoft.resources/deployments"
# What tells how a resource is deployed, and is no part of it.
_ABOUT = frozenset(
    {
        *("type", "apiversion", "name", "condition", "copy", "dependson", "comments", "resources"),
        *("scope", "resourcegroup", "subscriptionid", "existing", "metadata", "asserts", "import"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One resource to be written."""

    id: str
    type: str
    name: str  # with the names of its parents
    api_version: str
    path: Path
    raw: Mapping[str, Any] = field(repr=False)
    frame: Frame = field(repr=False)
    depends_on: tuple[str, ...] = ()  # ids, as in `Plan.resources`
    is_nested_template: bool = False
    inner_scope: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a template amounts to, in an order in which each resource follows what it needs."""

    template: Template
    surroundings: Surroundings
    parameters: Parameters
    resources: tuple[Planned, ...]
    names: "_Names" = field(repr=False)

    def evaluator(self, known: Known | None = None) -> Evaluator:
        """Return an evaluator that knows the documents of some deployed resources."""
        made = _evaluator(
            self.template, self.surroundings, self.parameters, known, Budget(calls=MAX_CALLS // 10)
        )
        made.lookup = self.names.lookup
        return made

    def body(self, resource: Planned, known: Known, *, partial: bool = False) -> dict[str, Any]:
        """Return what is to be written. Raises TemplateError, and Missing unless `partial`."""
        return _body(self.evaluator(known), resource, partial=partial)

    def preview(self, resource: Planned) -> dict[str, Any]:
        """Return what may be shown of what is to be written, as far as it is known beforehand."""
        evaluator = self.evaluator()
        evaluator.cover = lambda _value: MASK
        shown: dict[str, Any] = shown_body(_body(evaluator, resource, partial=True))
        return shown

    def outputs(self, known: Known) -> dict[str, Any]:
        """Return the outputs as a deployment gives them: `{"name": {"type", "value"}}`.

        Whatever is made of a secure parameter has no value: it is never given back. Raises
        TemplateError and Missing.
        """
        return _outputs(self.evaluator(known), self.template)


def make_plan(template: Template, surroundings: Surroundings, parameters: Parameters) -> Plan:
    """Return the resources of a template in their order. Raises TemplateError.

    Their contents are looked through as well, as far as nothing must be deployed first: a mistake
    is found before anything is written.
    """
    evaluator = _evaluator(template, surroundings, parameters, None, Budget())
    drafts = list(_unrolled(evaluator, template.resources))
    names = _Names(drafts, _loops(template.resources))
    evaluator.lookup = names.lookup
    resources = _in_order(
        [
            replace(draft.planned, depends_on=names.needs(evaluator, draft))
            for draft in drafts
            if draft.is_written
        ]
    )
    plan = Plan(
        template=template,
        surroundings=surroundings,
        parameters=parameters,
        resources=resources,
        names=names,
    )
    for resource in resources:
        _body(evaluator, resource, partial=True)
    _outputs(evaluator, template, partial=True)
    return plan


def _evaluator(
    template: Template,
    surroundings: Surroundings,
    parameters: Parameters,
    known: Known | None,
    budget: Budget,
) -> Evaluator:
    names = {name.lower(): name for name in parameters.values}
    secure = parameters.secure

    def parameter(evaluator: Evaluator, name: str) -> Value:
        key = name.lower()
        if key not in names:
            raise unknown(name, template)
        evaluator.tainted = evaluator.tainted or key in secure
        return parameters.values[names[key]]

    return Evaluator(
        template, surroundings, parameter, budget=budget, known=known, contextual=CONTEXT
    )


# Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A resource before it is known what it depends on."""

    planned: Planned
    symbol: str | None
    loop: str | None  # the name of its copy loop
    index: int
    batch: int | None  # of a serial loop: which round of rounds
    is_written: bool  # its condition holds, and it is not said to exist
    parent: str | None  # id of the resource that it stands in
    loop_key: str = ""  # which loop of which resource: serial rounds wait for each other


def _unrolled(
    evaluator: Evaluator,
    resources: Iterable[RawResource],
    parent: _Draft | None = None,
) -> Iterator[_Draft]:
    count = 0
    for raw in resources:
        for draft in _rounds(evaluator, raw, parent):
            for each in (draft, *_children(evaluator, draft)):
                count += 1
                if count > MAX_RESOURCES:
                    raise TemplateError(
                        f"the template has more than {MAX_RESOURCES} resources: deploy it in parts",
                        path=raw.path,
                    )
                yield each


def _rounds(evaluator: Evaluator, raw: RawResource, parent: _Draft | None) -> Iterator[_Draft]:
    frame = parent.planned.frame if parent else TOP
    loop = _member(raw.body, "copy")
    if loop is None:
        yield _draft(evaluator, raw, frame, parent)
        return
    path = (*raw.path, "copy")
    if not isinstance(loop, Mapping):
        raise TemplateError(f"copy must be an object, and is {kind_of(loop)}", path=path)
    name = evaluator.expect(loop.get("name"), frame, (*path, "name"), str, "the loop's name")
    size = _batch_size(evaluator, loop, frame, path)
    for index in range(evaluator.count(loop, frame, path)):
        draft = _draft(evaluator, raw, frame.within(name, index, is_default=True), parent)
        yield replace(
            draft,
            loop=name,
            index=index,
            batch=None if size is None else index // size,
            loop_key=dotted(raw.path) + (parent.planned.id if parent else ""),
        )


def _batch_size(
    evaluator: Evaluator, loop: Mapping[str, Any], frame: Frame, path: Path
) -> int | None:
    """Return how many rounds go at once, or None for all."""
    mode = evaluator.document(loop.get("mode", "parallel"), frame, (*path, "mode"))
    if not isinstance(mode, str) or mode.lower() not in ("serial", "parallel"):
        raise TemplateError("mode must be serial or parallel", path=(*path, "mode"))
    if mode.lower() == "parallel":
        return None
    size = evaluator.document(loop.get("batchSize", 1), frame, (*path, "batchSize"))
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise TemplateError("batchSize must be an integer above 0", path=(*path, "batchSize"))
    return size


def _draft(evaluator: Evaluator, raw: RawResource, frame: Frame, parent: _Draft | None) -> _Draft:
    def text(name: str, default: str | None = None) -> str:
        value = _member(raw.body, name)
        if value is None and default is not None:
            return default
        if value is None:
            raise TemplateError(f"the resource has no '{name}', which is required", path=raw.path)
        return str(evaluator.expect(value, frame, (*raw.path, name), str, "a text"))

    existing = evaluator.document(
        _member(raw.body, "existing") or False, frame, (*raw.path, "existing")
    )
    type, name = text("type").strip("/"), text("name")
    if parent is not None:
        type, name = _full_name(parent.planned, type, name)
    version = text("apiVersion", _profile(evaluator))
    is_nested = type.lower() == DEPLOYMENTS
    place = _place(evaluator, raw, frame, is_nested=is_nested)
    try:
        id = f"{place.id}/providers/{ids.type_and_names(type, [name])}"
    except FunctionError as error:
        raise TemplateError(f"{error}", path=(*raw.path, "name")) from error
    planned = Planned(
        id=id,
        type=type,
        name=name,
        api_version=version,
        path=raw.path,
        raw=raw.body,
        frame=frame,
        is_nested_template=is_nested,
        inner_scope=is_nested and _inner_scope(evaluator, raw, frame),
    )
    return _Draft(
        planned=planned,
        symbol=raw.symbol,
        loop=None,
        index=0,
        batch=None,
        is_written=existing is not True and _condition(evaluator, raw, frame),
        parent=parent.planned.id if parent else None,
    )


def _full_name(parent: Planned, type: str, name: str) -> tuple[str, str]:
    """Return the whole type and name of a resource within another; either may be whole already."""
    if not type.lower().startswith(f"{parent.type.lower()}/"):
        type = f"{parent.type}/{type}"
    if name.count("/") < type.count("/") - 1:
        name = f"{parent.name}/{name}"
    return type, name


def _profile(evaluator: Evaluator) -> str | None:
    profile = evaluator.template.raw.get("apiProfile")
    return profile if isinstance(profile, str) and profile else None


def _place(evaluator: Evaluator, raw: RawResource, frame: Frame, *, is_nested: bool) -> ids.Place:
    """Return where a resource goes: nested templates may go to another group."""
    place = place_of(evaluator)
    scope = _member(raw.body, "scope")
    if scope is not None:
        raise TemplateError(
            "resources of another scope are not deployed here: take 'scope' out, or deploy to that "
            "resource group",
            path=(*raw.path, "scope"),
        )
    for name in ("subscriptionId", "resourceGroup"):
        value = _member(raw.body, name)
        if value is None:
            continue
        if not is_nested:
            raise TemplateError(
                f"only a Microsoft.Resources/deployments has a '{name}'", path=(*raw.path, name)
            )
        text = str(evaluator.expect(value, frame, (*raw.path, name), str, "a text"))
        place = (
            replace(place, subscription=text)
            if name == "subscriptionId"
            else replace(place, group=text)
        )
    return place


def _inner_scope(evaluator: Evaluator, raw: RawResource, frame: Frame) -> bool:
    properties = _member(raw.body, "properties")
    if not isinstance(properties, Mapping):
        return False
    if _member(properties, "templateLink") is not None:
        raise TemplateError(
            "linked templates are not fetched here: put the template itself into "
            "properties.template",
            path=(*raw.path, "properties", "templateLink"),
        )
    options = _member(properties, "expressionEvaluationOptions")
    scope = _member(options, "scope") if isinstance(options, Mapping) else None
    path = (*raw.path, "properties", "expressionEvaluationOptions", "scope")
    return str(evaluator.document(scope or "outer", frame, path)).lower() == "inner"


def _condition(evaluator: Evaluator, raw: RawResource, frame: Frame) -> bool:
    condition = _member(raw.body, "condition")
    if condition is None:
        return True
    return _holds(evaluator, condition, frame, (*raw.path, "condition"))


def _holds(evaluator: Evaluator, condition: Any, frame: Frame, path: Path) -> bool:
    value = evaluator.document(condition, frame, path)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise TemplateError(f"a condition must be a boolean, and is {kind_of(value)}", path=path)
    return value


def _children(evaluator: Evaluator, parent: _Draft) -> Iterator[_Draft]:
    """Give the resources that stand within a resource; they go when it does not."""
    section = _member(parent.planned.raw, "resources")
    if section is None:
        return
    path = (*parent.planned.path, "resources")
    if isinstance(section, Mapping):
        items: list[tuple[str | None, str | int, Any]] = [
            (name, name, item) for name, item in section.items()
        ]
    elif isinstance(section, list):
        items = [(None, place, item) for place, item in enumerate(section)]
    else:
        raise TemplateError(f"resources must be an array, and is {kind_of(section)}", path=path)
    for symbol, step, item in items:
        if not isinstance(item, Mapping):
            raise TemplateError("a resource must be an object", path=(*path, step))
        raw = RawResource(symbol=symbol, body=item, path=(*path, step))
        for draft in _unrolled(evaluator, [raw], parent):
            yield replace(draft, is_written=draft.is_written and parent.is_written)


def _member(body: Mapping[str, Any], name: str) -> Any:
    if name in body:
        return body[name]
    wanted = name.lower()
    return next((value for key, value in body.items() if key.lower() == wanted), None)


# Who needs whom


class _Names:
    """What resources of a template are called, in `dependsOn` and `reference`."""

    def __init__(self, drafts: list[_Draft], loops: frozenset[str]) -> None:
        self._loops = loops
        self._by_id: dict[str, _Draft] = {}
        self._by_name: dict[str, list[_Draft]] = {}
        self._batches: dict[tuple[str, int], list[str]] = {}
        for draft in drafts:
            self._add(draft)

    def _add(self, draft: _Draft) -> None:
        planned = draft.planned
        known = self._by_id.get(planned.id.lower())
        if draft.is_written and known is not None and known.is_written:
            raise TemplateError(
                f"The resource '{planned.id}' is defined multiple times in the template: here and "
                f"at {dotted(known.planned.path)}",
                path=planned.path,
            )
        if known is None or draft.is_written:
            self._by_id[planned.id.lower()] = draft
        aliases = {planned.name, f"{planned.type}/{planned.name}", _interleaved(planned)}
        if draft.symbol is not None:
            aliases.add(draft.symbol)
            if draft.loop is not None:
                aliases.add(f"{draft.symbol}[{draft.index}]")
        if draft.loop is not None:
            aliases.add(draft.loop)
        for alias in {each.lower() for each in aliases}:
            self._by_name.setdefault(alias, []).append(draft)
        if draft.batch is not None:
            self._batches.setdefault((draft.loop_key, draft.batch), []).append(planned.id)

    def find(self, name: str) -> list[_Draft]:
        """Return the resources that a name, a loop's name or an id means."""
        key = name.strip().lower()
        if key.startswith("/"):
            found = self._by_id.get(key.rstrip("/"))
            return [found] if found else []
        return self._by_name.get(key.rstrip("/"), [])

    def lookup(self, name: str, version: str | None) -> list[Request]:
        """Return what `reference` names: resources of the template, or an id of any."""
        found = self.find(name)
        if found:
            return [
                Request(id=each.planned.id, api_version=version or each.planned.api_version)
                for each in found
            ]
        if not name.startswith("/"):
            raise FunctionError(
                f"the resource '{name[:200]}' is not defined in the template: give its id, by "
                "resourceId(), where it exists already"
            )
        return [Request(id=name.rstrip("/"), api_version=version)]

    def needs(self, evaluator: Evaluator, draft: _Draft) -> tuple[str, ...]:
        """Return the ids of the resources that must be there first. Raises TemplateError."""
        planned = draft.planned
        path = (*planned.path, "dependsOn")
        given = evaluator.document(_member(planned.raw, "dependsOn") or [], planned.frame, path)
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise TemplateError("dependsOn must be an array of strings", path=path)
        found: list[_Draft] = []
        for place, name in enumerate(given):
            drafts = self.find(name)
            if not drafts and name.lower() not in self._loops:
                raise TemplateError(
                    f"The resource '{name[:300]}' is not defined in the template: dependsOn names "
                    "resources of the template, by id, by type and name, or a loop by its name",
                    path=(*path, place),
                )
            found.extend(drafts)
        found.extend(self._referred(evaluator, planned))
        if draft.parent is not None:
            found.extend(self.find(draft.parent))
        needed = [each.planned.id for each in found if each.is_written]
        if draft.batch:
            needed.extend(self._batches.get((draft.loop_key, draft.batch - 1), []))
        own = planned.id.lower()
        return tuple(dict.fromkeys(each for each in needed if each.lower() != own))

    def _referred(self, evaluator: Evaluator, planned: Planned) -> Iterator[_Draft]:
        """Give the resources of the template that the properties ask about."""
        raw = {key: item for key, item in planned.raw.items() if key.lower() != "resources"}
        for call in evaluator.calls(raw):
            if call.name.lower() not in ("reference", "references") or not call.arguments:
                continue
            try:
                name = evaluator.value(call.arguments[0], planned.frame)
            except (TemplateError, Missing):
                continue  # only known in a loop, or when its turn comes; dependsOn says it then
            if isinstance(name, str):
                yield from self.find(name)


def _loops(resources: Iterable[RawResource]) -> frozenset[str]:
    """Return the names of loops, in lower case: one without rounds may be depended on as well."""
    found: set[str] = set()
    for raw in resources:
        loop = _member(raw.body, "copy")
        if isinstance(loop, Mapping):
            found.update(
                each.lower() for each in (loop.get("name"), raw.symbol) if isinstance(each, str)
            )
    return frozenset(found)


def _interleaved(planned: Planned) -> str:
    """Return `provider/type/name/type/name`, as `resourceId` writes it after `/providers/`."""
    return planned.id.rpartition("/providers/")[2]


def _in_order(resources: list[Planned]) -> tuple[Planned, ...]:
    """Return resources so that each follows what it needs; else in the template's order.

    Raises TemplateError, which names the circle.
    """
    by_id = {each.id: each for each in resources}
    done: dict[str, Planned] = {}
    for resource in resources:
        waiting = [(resource, iter(resource.depends_on))]
        open_ids = [resource.id]
        if resource.id in done:
            continue
        while waiting:
            current, rest = waiting[-1]
            following = next((each for each in rest if each not in done), None)
            if following is None:
                waiting.pop()
                open_ids.pop()
                done[current.id] = current
            elif following in open_ids:
                circle = [*open_ids[open_ids.index(following) :], following]
                raise TemplateError(
                    "Circular dependency detected on resource: "
                    + " -> ".join(each.rpartition("/providers/")[2] for each in circle)
                    + ": take one of these out of dependsOn, or one reference() out of the "
                    "properties",
                    path=by_id[following].path,
                )
            else:
                waiting.append((by_id[following], iter(by_id[following].depends_on)))
                open_ids.append(following)
    return tuple(done.values())


# Contents


def _body(evaluator: Evaluator, resource: Planned, *, partial: bool) -> dict[str, Any]:
    body: dict[str, Any] = {}
    frame = replace(resource.frame, runtime=True)
    for key, item in resource.raw.items():
        if key.lower() in _ABOUT:
            continue
        path = (*resource.path, key)
        if resource.is_nested_template and key.lower() == "properties":
            body[key] = nested_properties(
                evaluator, item, frame, path, own_scope=resource.inner_scope, partial=partial
            )
        else:
            body[key] = evaluator.document(item, frame, path, partial=partial)
    if not fits_in(body, MAX_BODY):
        raise TemplateError(
            f"the resource becomes longer than {MAX_BODY} characters", path=resource.path
        )
    return body


def _outputs(evaluator: Evaluator, template: Template, *, partial: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, item in template.outputs.items():
        output = _output(evaluator, item, ("outputs", name), partial=partial)
        if output is not None:
            shown[name] = output
    if not fits_in(shown, MAX_BODY):
        raise TemplateError(
            f"the outputs become longer than {MAX_BODY} characters in all", path=("outputs",)
        )
    return shown


def _output(
    evaluator: Evaluator, item: Mapping[str, Any], path: Path, *, partial: bool = False
) -> dict[str, Any] | None:
    frame = replace(TOP, runtime=True)
    kind = TYPES.get(str(item.get("type", "")).lower())
    if kind is None:
        raise TemplateError(
            "the type of an output must be one of string, securestring, int, bool, object, "
            "secureObject and array",
            path=(*path, "type"),
        )
    condition = item.get("condition")
    if condition is not None and not _holds(evaluator, condition, TOP, (*path, "condition")):
        return None
    evaluator.tainted = False
    loop = item.get("copy")
    value: Any
    if isinstance(loop, Mapping):
        named = {"name": path[-1], **loop}
        value = evaluator.loop(named, frame, (*path, "copy"), partial=partial)[1]
    elif "value" not in item:
        raise TemplateError("an output must have a value", path=path)
    else:
        value = evaluator.document(item["value"], frame, (*path, "value"), partial=partial)
    unknown_yet = partial and isinstance(value, str) and is_expression(value)
    if not unknown_yet and value is not None and not fits(kind, value):
        raise TemplateError(
            f"the output is of type '{kind}', and its value is {kind_of(value)}",
            path=(*path, "value"),
        )
    if kind in SECURE or evaluator.tainted:
        return {"type": secured(kind)}
    return {"type": kind, "value": value}
