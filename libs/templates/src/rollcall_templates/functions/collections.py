"""Functions on arrays and objects, and those that texts share with them."""

from rollcall_templates.functions.arguments import Arguments, Function
from rollcall_templates.limits import MAX_ITEMS
from rollcall_templates.values import FunctionError, Value, member, same


def length(arguments: Arguments) -> int:
    """Return how many items, members or characters there are."""
    value = arguments.values[0]
    if not isinstance(value, str | list | dict):
        raise arguments.wrong(0, "a string, an array or an object")
    return len(value)


def first(arguments: Arguments) -> Value:
    """Return the first item or character; of an empty array null, of an empty text an empty one."""
    return _end(arguments, 0)


def last(arguments: Arguments) -> Value:
    """Return the last item or character."""
    return _end(arguments, -1)


def _end(arguments: Arguments, place: int) -> Value:
    value = arguments.values[0]
    if not isinstance(value, str | list):
        raise arguments.wrong(0, "a string or an array")
    if value:
        return value[place]
    return "" if isinstance(value, str) else None


def take(arguments: Arguments) -> Value:
    """Return so many items or characters from the start."""
    value, count = _sequence(arguments), arguments.whole(1)
    return value[: max(count, 0)]


def skip(arguments: Arguments) -> Value:
    """Return all items or characters after so many."""
    value, count = _sequence(arguments), arguments.whole(1)
    return value[max(count, 0) :]


def _sequence(arguments: Arguments) -> str | list[Value]:
    value = arguments.values[0]
    if not isinstance(value, str | list):
        raise arguments.wrong(0, "a string or an array")
    return value


def contains(arguments: Arguments) -> bool:
    """Say whether an array has an item, an object a member, or a text a part (by its case)."""
    holder, wanted = arguments.values
    match holder:
        case list():
            return any(same(each, wanted) for each in holder)
        case dict():
            return member(holder, arguments.text(1))[0]
        case str():
            return arguments.text(1) in holder
    raise arguments.wrong(0, "a string, an array or an object")


def empty(arguments: Arguments) -> bool:
    """Say whether nothing is in a value; null is empty."""
    value = arguments.values[0]
    if value is None:
        return True
    if not isinstance(value, str | list | dict):
        raise arguments.wrong(0, "a string, an array or an object")
    return not value


def union(arguments: Arguments) -> Value:
    """Return all items once, or all members; of one that several have, the last one's value."""
    if arguments.all_are(list):
        kept: list[Value] = []
        for each in arguments.values:
            kept.extend(_missing(each, kept))
        return kept
    if arguments.all_are(dict):
        merged: dict[str, Value] = {}
        for each in arguments.values:
            merged = _merged(merged, each)
        return merged
    raise FunctionError("all its arguments must be arrays, or all must be objects")


def _missing(items: list[Value], known: list[Value]) -> list[Value]:
    """Return the items that are not known yet; texts and numbers are found by their hash."""
    simple = {(type(each), each) for each in known if not isinstance(each, list | dict)}
    nested = [each for each in known if isinstance(each, list | dict)]
    found: list[Value] = []
    for each in items:
        if isinstance(each, list | dict):
            if not any(same(each, other) for other in nested):
                nested.append(each)
                found.append(each)
        elif (type(each), each) not in simple:
            simple.add((type(each), each))
            found.append(each)
    return found


def _merged(one: dict[str, Value], other: dict[str, Value]) -> dict[str, Value]:
    """Return both objects' members; objects of the same name are merged in their turn."""
    merged = dict(one)
    names = {name.lower(): name for name in one}
    for name, value in other.items():
        known = names.setdefault(name.lower(), name)
        before = merged.get(known)
        if isinstance(before, dict) and isinstance(value, dict):
            value = _merged(before, value)
        merged[known] = value
    return merged


def intersection(arguments: Arguments) -> Value:
    """Return the items that all arrays have, or the members that all objects have alike."""
    if arguments.all_are(list):
        kept = _missing(arguments.values[0], [])
        for other in arguments.values[1:]:
            kept = [each for each in kept if any(same(each, item) for item in other)]
        return kept
    if arguments.all_are(dict):
        common = dict(arguments.values[0])
        for other in arguments.values[1:]:
            common = {
                name: value
                for name, value in common.items()
                for there, theirs in (member(other, name),)
                if there and same(value, theirs)
            }
        return common
    raise FunctionError("all its arguments must be arrays, or all must be objects")


def array(arguments: Arguments) -> list[Value]:
    """Return a value as an array of one."""
    value = arguments.values[0]
    return value if isinstance(value, list) else [value]


def create_object(arguments: Arguments) -> dict[str, Value]:
    """Return an object of keys and values, which take turns."""
    if len(arguments) % 2:
        raise FunctionError("it takes keys and values in turn, so an even number of arguments")
    return {
        arguments.text(place): arguments.values[place + 1] for place in range(0, len(arguments), 2)
    }


def flatten(arguments: Arguments) -> list[Value]:
    """Return the items of an array's arrays in one array."""
    found: list[Value] = []
    for each in arguments.array(0):
        if not isinstance(each, list):
            raise FunctionError("its argument 1 must be an array of arrays")
        if len(found) + len(each) > MAX_ITEMS:
            raise FunctionError(f"the result would have more than {MAX_ITEMS} items")
        found.extend(each)
    return found


def items(arguments: Arguments) -> list[Value]:
    """Return an object's members as an array of `key` and `value`, in the order of the keys."""
    value = arguments.object(0)
    return [{"key": key, "value": value[key]} for key in sorted(value)]


def object_keys(arguments: Arguments) -> list[str]:
    """Return the names of an object's members, in order."""
    return sorted(arguments.object(0))


def shallow_merge(arguments: Arguments) -> dict[str, Value]:
    """Return the members of an array's objects; of one that several have, the last one's value."""
    merged: dict[str, Value] = {}
    for each in arguments.array(0):
        if not isinstance(each, dict):
            raise FunctionError("its argument 1 must be an array of objects")
        merged.update(each)
    return merged


def try_get(arguments: Arguments) -> Value:
    """Return what is inside a value, step by step; null for what is not there."""
    value = arguments.values[0]
    for key in arguments.values[1:]:
        if isinstance(value, dict) and isinstance(key, str):
            value = member(value, key)[1]
        elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            return None
    return value


TABLE = (
    Function("length", 1, 1, length),
    Function("first", 1, 1, first),
    Function("last", 1, 1, last),
    Function("take", 2, 2, take),
    Function("skip", 2, 2, skip),
    Function("contains", 2, 2, contains),
    Function("empty", 1, 1, empty),
    Function("union", 1, None, union),
    Function("intersection", 1, None, intersection),
    Function("array", 1, 1, array),
    Function("createArray", 0, None, lambda a: list(a.values)),
    Function("createObject", 0, None, create_object),
    Function("flatten", 1, 1, flatten),
    Function("items", 1, 1, items),
    Function("objectKeys", 1, 1, object_keys),
    Function("shallowMerge", 1, 1, shallow_merge),
    Function("tryGet", 2, None, try_get),
)
