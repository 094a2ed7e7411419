"""The functions that ask about the deployment: parameters, loops, ids, deployed resources."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rollcall_templates import ids
from rollcall_templates.evaluate import Contextual, Evaluator, Frame, Missing, Request
from rollcall_templates.functions.arguments import Arguments
from rollcall_templates.functions.times import ISO, in_form
from rollcall_templates.hashing import guid
from rollcall_templates.surroundings import Fresh
from rollcall_templates.values import FunctionError, Value, is_whole


def _one_text(values: Sequence[Value]) -> str:
    if len(values) != 1:
        raise FunctionError(f"it takes 1 argument, and was given {len(values)}")
    return Arguments(values).text(0)


def _parameters(evaluator: Evaluator, values: Sequence[Value], frame: Frame) -> Value:
    return evaluator.parameter(_one_text(values), frame)


def _variables(evaluator: Evaluator, values: Sequence[Value], frame: Frame) -> Value:
    return evaluator.variable(_one_text(values), frame)


def _copy_index(_evaluator: Evaluator, values: Sequence[Value], frame: Frame) -> Value:
    given = list(values)
    name = given.pop(0) if given and isinstance(given[0], str) else None
    offset = given.pop(0) if given else 0
    if given or not is_whole(offset):
        raise FunctionError("it takes a loop's name and an integer to add, both optional")
    loop = frame.loop if name is None else name.lower()
    if loop is None or loop not in frame.copies:
        known = ", ".join(frame.copies) or "none"
        raise FunctionError(
            f"there is no loop {name!r} around it; there is {known}"
            if name
            else "there is no loop around it"
        )
    return frame.copies[loop] + offset


def _resource_id(evaluator: Evaluator, values: Sequence[Value], _frame: Frame) -> Value:
    return ids.resource_id(place_of(evaluator), _texts(values, 2))


def _subscription_id(evaluator: Evaluator, values: Sequence[Value], _frame: Frame) -> Value:
    return ids.subscription_resource_id(place_of(evaluator), _texts(values, 2))


def _tenant_id(_evaluator: Evaluator, values: Sequence[Value], _frame: Frame) -> Value:
    given = _texts(values, 2)
    return f"/providers/{ids.type_and_names(given[0], given[1:])}"


def _extension_id(_evaluator: Evaluator, values: Sequence[Value], _frame: Frame) -> Value:
    return ids.extension_resource_id(_texts(values, 3))


def _texts(values: Sequence[Value], least: int) -> list[str]:
    if len(values) < least:
        raise FunctionError(f"it takes {least} or more arguments, and was given {len(values)}")
    return Arguments(values).texts()


def place_of(evaluator: Evaluator) -> ids.Place:
    """Return the subscription and the group of the deployment."""
    around = evaluator.surroundings
    return ids.Place(subscription=around.subscription_id, group=around.group_name)


def _answer(name: str) -> Contextual:
    """Return a function without arguments that gives one of the deployment's surroundings."""

    def answer(evaluator: Evaluator, values: Sequence[Value], _frame: Frame) -> Value:
        if values:
            raise FunctionError(f"it takes no arguments, and was given {len(values)}")
        return getattr(evaluator.surroundings, name)

    return answer


def _providers(evaluator: Evaluator, values: Sequence[Value], _frame: Frame) -> Value:
    given = _texts(values, 1)
    types = {
        name.lower(): (name, kinds) for name, kinds in evaluator.surroundings.providers.items()
    }
    if len(given) > 2 or given[0].lower() not in types:
        raise FunctionError(f"its argument 1 must be one of {', '.join(sorted(types))}")
    location = str(evaluator.surroundings.group.get("location", ""))
    name, kinds = types[given[0].lower()]
    listed = [
        {"resourceType": kind, "locations": [location], "apiVersions": list(versions)}
        for kind, versions in kinds.items()
        if len(given) == 1 or kind.lower() == given[1].lower()
    ]
    if len(given) == 1:
        return {"namespace": name, "resourceTypes": listed}
    if not listed:
        raise FunctionError(f"{name} has no resource type {given[1][:100]}")
    return listed[0]


def _reference(evaluator: Evaluator, values: Sequence[Value], frame: Frame) -> Value:
    given = _asked(values, frame)
    full = len(given) > 2 and given[2].lower() == "full"
    version = given[1] if len(given) > 1 and given[1] else None
    if evaluator.lookup is None:
        raise FunctionError("it cannot be used at this location")
    found = evaluator.lookup(given[0], version)
    if len(found) != 1:
        raise FunctionError(
            f"'{given[0][:200]}' names {len(found)} resources of the template: give the id of one"
        )
    return _document(evaluator, found[0], full)


def _references(evaluator: Evaluator, values: Sequence[Value], frame: Frame) -> Value:
    given = _asked(values, frame)
    full = len(given) > 1 and given[-1].lower() == "full"
    if evaluator.lookup is None:
        raise FunctionError("it cannot be used at this location")
    found = evaluator.lookup(given[0], None)
    return [_document(evaluator, each, full) for each in found]


def _asked(values: Sequence[Value], frame: Frame) -> list[str]:
    if not frame.runtime:
        raise FunctionError(
            "it cannot be used at this location: only in the properties of a resource and in "
            "outputs, where the resource is deployed already"
        )
    given = _texts(values, 1)
    if len(given) > 3:
        raise FunctionError(f"it takes 1 to 3 arguments, and was given {len(given)}")
    return given


def _document(evaluator: Evaluator, request: Request, full: bool) -> Value:
    document = evaluator.known.get(request.key)
    if document is None:
        raise Missing(request)
    return document if full else document.get("properties", {})


def _no_keys(_evaluator: Evaluator, _values: Sequence[Value], _frame: Frame) -> Value:
    raise FunctionError("nothing here has keys to list: give what you need by a parameter")


def fresh_functions(fresh: Fresh) -> Mapping[str, Contextual]:
    """Return what the default values of parameters may ask besides: the time, and new ids."""
    made: list[str] = []

    def utc_now(_evaluator: Evaluator, values: Sequence[Value], _frame: Frame) -> Value:
        if len(values) > 1:
            raise FunctionError("it takes a format at most")
        moment: datetime = fresh.now
        return in_form(moment, Arguments(values).text(0) if values else ISO)

    def new_guid(_evaluator: Evaluator, values: Sequence[Value], _frame: Frame) -> Value:
        if values:
            raise FunctionError("it takes no arguments")
        made.append(guid(fresh.guid, str(len(made))))
        return made[-1]

    return {**CONTEXT, "utcnow": utc_now, "newguid": new_guid}


def _only_in_defaults(_evaluator: Evaluator, _values: Sequence[Value], _frame: Frame) -> Value:
    raise FunctionError("it can only be used in the default value of a parameter")


CONTEXT: Mapping[str, Contextual] = {
    "parameters": _parameters,
    "variables": _variables,
    "copyindex": _copy_index,
    "resourceid": _resource_id,
    "subscriptionresourceid": _subscription_id,
    "tenantresourceid": _tenant_id,
    "extensionresourceid": _extension_id,
    "resourcegroup": _answer("group"),
    "subscription": _answer("subscription"),
    "tenant": _answer("tenant"),
    "deployment": _answer("deployment"),
    "environment": _answer("environment"),
    "providers": _providers,
    "reference": _reference,
    "references": _references,
    "utcnow": _only_in_defaults,
    "newguid": _only_in_defaults,
    **dict.fromkeys(("list", "listkeys", "listsecrets", "listaccountsas"), _no_keys),
}
