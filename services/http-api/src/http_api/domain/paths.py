"""Request paths: ARM compares them without regard to case, but keeps the case of names."""

_WORDS = (
    "subscriptions",
    "resourceGroups",
    "providers",
    "locations",
    "publishers",
    "artifacttypes",
    "vmimage",
    "offers",
    "skus",
    "versions",
    "virtualMachineScaleSets",
    "virtualMachines",
    "instanceView",
    "osUpgradeHistory",
    "osRollingUpgrade",
    "rollingUpgrades",
    "latest",
    "cancel",
    "pause",
    "resume",
    "rollback",
    "approveRollingUpgrade",
    "lifecycleHookEvents",
    "manualupgrade",
    "reimage",
    "reimageall",
    "start",
    "restart",
    "powerOff",
    "deallocate",
    "redeploy",
    "operations",
    "operationResults",
    "extensions",
    "delete",
    "register",
    "unregister",
    "resources",
    "tenants",
    "virtualNetworks",
    "subnets",
    "Microsoft.Resources",
    "explain",
    "state",
    "loadBalancers",
    "inboundNatRules",
    "rollcall",
    "upgrades",
    "events",
    "Microsoft.Compute",
    "Microsoft.Network",
    "deployments",
    "operationStatuses",
    "validate",
    "whatIf",
    "exportTemplate",
    "calculateTemplateHash",
    "Microsoft.Insights",
    "autoscaleSettings",
)
_LITERALS = {word.lower(): word for word in _WORDS}
# After these a literal stands where a name usually does.
_FOLLOWED_BY_LITERAL = frozenset({"providers", "rollingUpgrades", "artifacttypes"})
_PREFIX = "rollcall"  # what follows it takes turns as if it were not there


def normal_path(path: str) -> str:
    """Return an ARM path with its fixed words in their usual case, and no empty segments.

    In `/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/type/name/…` words and names
    take turns; a name keeps its case even where it looks like a word.
    """
    segments = [segment for segment in path.split("/") if segment]
    if not segments or segments[0].lower() not in ("subscriptions", "providers", "tenants"):
        return "/" + "/".join(segments)
    normal: list[str] = []
    is_word = True
    for segment in segments:
        word = _LITERALS.get(segment.lower(), segment)
        if is_word:
            normal.append(word)
            is_word = word == _PREFIX
        else:
            after_literal = normal[-1] in _FOLLOWED_BY_LITERAL
            normal.append(word if after_literal else segment)
            is_word = True
    return "/" + "/".join(normal)
