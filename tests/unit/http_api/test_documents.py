"""Bodies, durations, paths, ids, merging and secrets."""

import json
from typing import Any

import pytest
from http_api.domain.documents import ModelError, parse_body
from http_api.domain.durations import format_duration, parse_duration
from http_api.domain.extensions import with_extension
from http_api.domain.merging import merge_patch, merge_put, without
from http_api.domain.paths import normal_path
from http_api.domain.resource_ids import SCALE_SETS, probe_parts, resource_id
from http_api.domain.secrets import redacted, take_secrets
from http_api.sealing import sealed_secrets
from hypothesis import given
from hypothesis import strategies as st
from rollcall_kit.secrets import new_key

SET = "/subscriptions/Sub/resourceGroups/Grp/providers/Microsoft.Compute/virtualMachineScaleSets"
IMAGES = "/subscriptions/Sub/providers/Microsoft.Compute/locations/Loc/publishers"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff{}",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"1" * 5000 + b"}",
    ],
)
def test_bodies_that_somebody_would_choke_on_are_refused(raw: bytes) -> None:
    with pytest.raises(ModelError):
        parse_body(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(st.binary(max_size=50) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_an_object_or_a_model_error(raw: bytes) -> None:
    try:
        document = parse_body(raw)
    except ModelError:
        return
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT0S", 0),
        ("PT5M", 300),
        ("PT1H30M", 5400),
        ("P1D", 86_400),
        ("P1W", 604_800),
        ("P1DT1S", 86_401),
        ("PT0.5S", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1DT", "5M", "PT5", "P1M", "P1Y", "pt5m", "PT-1S", "PT1S ", "PT٣S"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_duration(text)


@given(st.integers(0, 10**8))
def test_a_duration_comes_back(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 10**9))
def test_a_fraction_comes_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/HEALTHZ", "/HEALTHZ"),
        ("//healthz/", "/healthz"),
        ("/", "/"),
        (SET.lower(), SET.replace("Sub", "sub").replace("Grp", "grp")),
        (SET.upper(), SET.replace("Sub", "SUB").replace("Grp", "GRP")),
        (f"{SET}//Web/OSUPGRADEHISTORY", f"{SET}/Web/osUpgradeHistory"),
        (f"{SET}/Web/rollingupgrades/LATEST", f"{SET}/Web/rollingUpgrades/latest"),
        (f"{SET}/Web/virtualmachines/0/INSTANCEVIEW", f"{SET}/Web/virtualMachines/0/instanceView"),
        # a name keeps its case, even one that looks like a word
        (f"{SET}/VIRTUALMACHINES/instanceview", f"{SET}/VIRTUALMACHINES/instanceView"),
        (f"{SET}/LATEST", f"{SET}/LATEST"),
        (f"{SET}/Web/RollCall/UPGRADES/AbC", f"{SET}/Web/rollcall/upgrades/AbC"),
        (
            f"{SET}/Web/rollcall/upgrades/LATEST/Events",
            f"{SET}/Web/rollcall/upgrades/LATEST/events",
        ),
        (f"{SET}/Web/rollingupgrades/PAUSE", f"{SET}/Web/rollingUpgrades/pause"),
        (f"{SET}/Web/EXPLAIN", f"{SET}/Web/explain"),
        (f"{SET}/Web/lifecyclehookevents/Ab", f"{SET}/Web/lifecycleHookEvents/Ab"),
        (
            f"{SET}/Web/virtualmachines/0/APPROVEROLLINGUPGRADE",
            f"{SET}/Web/virtualMachines/0/approveRollingUpgrade",
        ),
        (
            f"{IMAGES}/Pub/ArtifactTypes/VMImage/offers/Off/SKUS/Sku/Versions/1.0",
            f"{IMAGES}/Pub/artifacttypes/vmimage/offers/Off/skus/Sku/versions/1.0",
        ),
    ],
)
def test_paths_have_no_case_but_names_do(path: str, normal: str) -> None:
    assert normal_path(path) == normal


@pytest.mark.parametrize("bad", ["", "a/b", "a b", "a\nb", "é", "-a", "x" * 81, ".."])
def test_a_name_that_no_resource_may_have_is_refused(bad: str) -> None:
    with pytest.raises(ModelError):
        resource_id(subscription="s", group="g", type=SCALE_SETS, name=bad)


def test_ids_compare_without_case() -> None:
    one = resource_id(subscription="S", group="G", type=SCALE_SETS, name="Web")
    two = resource_id(subscription="s", group="g", type=SCALE_SETS, name="web")
    assert one.key == two.key
    assert one.id != two.id


def test_a_probe_id_is_taken_apart() -> None:
    id = "/Subscriptions/s/resourceGroups/g/providers/Microsoft.Network/LoadBalancers/LB/Probes/P"
    assert probe_parts(id) == (id.lower().rpartition("/probes/")[0], "p")
    assert probe_parts("/subscriptions/s") is None


def test_patch_is_a_json_merge_patch() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge_patch(old, {"a": {"b": None, "c": [3]}, "e": 2}) == {
        "a": {"c": [3]},
        "d": 1,
        "e": 2,
    }


def test_put_keeps_what_it_leaves_out() -> None:
    """`az vmss scale` puts location and sku only, `az vmss update` unsets the image reference."""
    storage = {"imageReference": {"sku": "s"}, "osDisk": {"x": 1}}
    old = {
        "location": "l",
        "tags": {"a": "1"},
        "sku": {"name": "n", "capacity": 1},
        "properties": {"virtualMachineProfile": {"storageProfile": storage}},
    }
    assert merge_put(old, {"location": "l", "sku": {"capacity": 2}}) == {
        **old,
        "sku": {"name": "n", "capacity": 2},
    }
    unset = {
        "properties": {
            "virtualMachineProfile": {"storageProfile": {"imageReference": None, "osDisk": None}}
        },
        "tags": {"b": "2"},
    }
    merged = merge_put(old, unset)
    assert merged["properties"]["virtualMachineProfile"]["storageProfile"] == {
        "imageReference": {"sku": "s"}
    }
    assert merged["tags"] == {"b": "2"}


@given(st.dictionaries(st.text(max_size=2), json_values), st.data())
def test_merging_twice_is_merging_once(old: dict[str, Any], data: st.DataObject) -> None:
    patch = data.draw(st.dictionaries(st.text(max_size=2), json_values))
    once = merge_patch(old, patch)
    assert merge_patch(once, patch) == once


def test_without_takes_paths_away() -> None:
    assert without({"a": {"b": 1, "c": 2}, "d": 3}, ["a.b", "d", "x.y"]) == {"a": {"c": 2}}


def secret_model(custom_data: object = "aGk=", protected: object = None) -> dict[str, Any]:
    extension: dict[str, Any] = {"name": "Ext", "properties": {"settings": {"customData": "kept"}}}
    if protected is not None:
        extension["properties"]["protectedSettings"] = protected
    return {
        "tags": {"adminPassword": "a tag"},
        "AdminPassword": "p1",
        "properties": {
            "virtualMachineProfile": {
                "osProfile": {
                    "adminPassword": "p2",
                    "customData": custom_data,
                    "windowsConfiguration": {
                        "additionalUnattendContent": [{"passName": "x", "content": "p3"}]
                    },
                },
                "extensionProfile": {"extensions": [extension]},
            }
        },
    }


def test_secrets_are_taken_out_wherever_they_are() -> None:
    public, secrets = take_secrets(secret_model(protected={"key": "p4"}), patch=False)
    text = json.dumps(public)
    assert not [secret for secret in ("p1", "p2", "p3", "p4", "aGk=") if secret in text]
    assert public["tags"] == {"adminPassword": "a tag"}
    assert '{"customData": "kept"}' in text
    assert secrets.custom_data == "aGk="
    assert secrets.protected_settings == {"ext": '{"key": "p4"}'}
    assert "p4" not in repr(secrets)
    assert "aGk=" not in repr(secrets)


@pytest.mark.parametrize("patch", [False, True])
def test_an_empty_custom_data_clears_it_and_in_a_patch_a_null_too(patch: bool) -> None:
    assert take_secrets(secret_model(""), patch=patch)[1].clears_custom_data
    assert take_secrets(secret_model(None), patch=patch)[1].clears_custom_data is patch
    assert not take_secrets({"sku": {"capacity": 1}}, patch=patch)[1].clears_custom_data


def sealed_model(**changed: Any) -> dict[str, Any]:
    """Return a model with an extension whose protected settings were taken out."""
    properties = {"publisher": "Contoso", "type": "CustomScript", **changed}
    extensions = [{"name": "Ext", "properties": properties}]
    profile = {"osProfile": {}, "extensionProfile": {"extensions": extensions}}
    return {"properties": {"virtualMachineProfile": profile}}


@pytest.mark.parametrize(
    ("changed", "patch", "stays"),
    [
        ({}, True, True),
        ({"publisher": "CONTOSO", "settings": {"a": 1}}, True, True),
        ({"protectedSettings": None}, True, False),
        ({"protectedSettings": None}, False, True),  # a client wrote back what it read
        ({"type": "Other"}, False, False),
        ({"publisher": "Fabrikam"}, True, False),
    ],
)
def test_protected_settings_stay_with_their_own_extension_until_a_patch_clears_them(
    changed: dict[str, Any], patch: bool, stays: bool
) -> None:
    before, old = sealed_model(), {"customData": None, "extensions": {"ext": "sealed"}}
    public, secrets = take_secrets(sealed_model(**changed), patch=patch)
    found = sealed_secrets(new_key(), public, before, old, secrets)["extensions"]
    assert found == ({"ext": "sealed"} if stays else {})


@pytest.mark.parametrize(
    ("changed", "patch", "stays"),
    [
        ({"PROTECTEDSETTINGS": None}, True, False),
        ({"PROTECTEDSETTINGS": None}, False, True),
        ({"type": "Other"}, True, True),  # it is changed, and not another one
        ({"type": "Other"}, False, False),
        ({"type": "Other", "protectedSettings": None}, False, False),
        ({"settings": {"a": 1}}, False, True),
    ],
)
def test_an_extensions_own_writes_keep_its_protected_settings_until_they_clear_them(
    changed: dict[str, Any], patch: bool, stays: bool
) -> None:
    before, old = sealed_model(), {"extensions": {"ext": "sealed"}}
    body = {"properties": {**sealed_extension(before), **changed}}
    change = with_extension(before, "ext", body, patch=patch)
    public, secrets = take_secrets(change, patch=True)
    found = sealed_secrets(new_key(), public, public, old, secrets)["extensions"]
    assert found == ({"ext": "sealed"} if stays else {})


def sealed_extension(model: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of the model's extension."""
    profile = model["properties"]["virtualMachineProfile"]
    properties: dict[str, Any] = profile["extensionProfile"]["extensions"][0]["properties"]
    return properties


@pytest.mark.parametrize("custom_data", ["not base64!", 12345678, "a" * 70_000])
def test_custom_data_must_be_base64_and_is_not_repeated(custom_data: object) -> None:
    with pytest.raises(ModelError) as caught:
        take_secrets(secret_model(custom_data), patch=True)
    assert str(custom_data) not in str(caught.value)


def test_protected_settings_must_be_an_object() -> None:
    with pytest.raises(ModelError) as caught:
        take_secrets(secret_model(protected="hunter2"), patch=True)
    assert "hunter2" not in str(caught.value)


@given(json_values)
def test_redaction_changes_nothing_else(value: object) -> None:
    assert redacted(value) == value
