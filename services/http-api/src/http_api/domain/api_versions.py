"""What older api-versions called differently (azure-aws-gcp.md 2.5)."""

from collections.abc import Mapping
from typing import Any

OLDEST = "2017-03-30"  # of the scale sets' API
FIRST_WITH_POLICY = "2018-10-01"  # automaticOSUpgradePolicy

# (old place, new name), both below properties.upgradePolicy
_RENAMED = (
    (("automaticOSUpgrade",), "enableAutomaticOSUpgrade"),
    (("autoOSUpgradePolicy", "disableAutoRollback"), "disableAutomaticRollback"),
)


def from_older(body: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return a scale set's body as the present API writes it; newer versions are left alone."""
    result = dict(body)
    properties_key = _key(body, "properties")
    properties = body.get(properties_key)
    if version >= FIRST_WITH_POLICY or not isinstance(properties, Mapping):
        return result
    policy_key = _key(properties, "upgradePolicy")
    policy = properties.get(policy_key)
    if not isinstance(policy, Mapping):
        return result
    moved = dict(policy)
    automatic_key = _key(policy, "automaticOSUpgradePolicy")
    given = policy.get(automatic_key) or {}
    if not isinstance(given, Mapping):
        return result  # whoever reads the policy says what is wrong with it
    automatic = dict(given)
    for path, name in _RENAMED:
        found = _take(moved, path)
        if found is not None:
            automatic[name] = found
    if automatic:
        moved[automatic_key] = automatic
    result[properties_key] = {**properties, policy_key: moved}
    return result


def _key(document: Mapping[str, Any], name: str) -> str:
    """Return how a document spells a name: ARM matches them without regard to case."""
    return next((key for key in document if key.lower() == name.lower()), name)


def _take(document: dict[str, Any], path: tuple[str, ...]) -> Any:
    key = _key(document, path[0])
    if len(path) == 1:
        return document.pop(key, None)
    inner = document.get(key)
    if not isinstance(inner, Mapping):
        return None
    rest = dict(inner)
    found = _take(rest, path[1:])
    if rest:
        document[key] = rest
    else:
        document.pop(key)
    return found


def for_older(document: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return a scale set's document with what older clients look for, beside the present names."""
    if version >= FIRST_WITH_POLICY:
        return dict(document)
    properties = document["properties"]
    policy = properties["upgradePolicy"]
    automatic = policy["automaticOSUpgradePolicy"]
    older = {
        **policy,
        "automaticOSUpgrade": automatic["enableAutomaticOSUpgrade"],
        "autoOSUpgradePolicy": {"disableAutoRollback": automatic["disableAutomaticRollback"]},
    }
    return {**document, "properties": {**properties, "upgradePolicy": older}}


def progress_for_older(document: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return an upgrade's document; 2017-03-30 spelled one of the counts otherwise."""
    if version >= FIRST_WITH_POLICY:
        return dict(document)
    properties = document["properties"]
    progress = properties["progress"]
    older = {**progress, "inprogressInstanceCount": progress["inProgressInstanceCount"]}
    return {**document, "properties": {**properties, "progress": older}}
