"""Sealing a model's secrets, and keeping the sealed ones that a request leaves out."""

from collections.abc import Mapping
from typing import Any

from rollcall_kit.secrets import SealError, resealed, seal, unseal

from http_api.domain.documents import at
from http_api.domain.extensions import kind_of
from http_api.domain.secrets import Secrets

_PROFILE = "properties.virtualMachineProfile"


def sealed_secrets(
    key: str,
    model: Mapping[str, Any],
    before: Mapping[str, Any],
    old: Mapping[str, Any],
    new: Secrets,
) -> dict[str, Any]:
    """Return `{"customData": …, "userData": …, "extensions": {name: …}}` for a merged model.

    Clients read models without secrets and write them back: what a request leaves out stays, as
    long as its extension or osProfile does. One of another publisher or type than in the model
    `before` is another extension, whatever its name. An unchanged secret keeps its sealed text, so
    that only a real change makes a new generation.
    """
    custom_data = old.get("customData")
    if new.clears_custom_data or at(model, f"{_PROFILE}.osProfile") is None:
        custom_data = None
    elif new.custom_data is not None:
        custom_data = _seal(key, new.custom_data, custom_data)
    user_data = old.get("userData")
    if new.clears_user_data or at(model, _PROFILE) is None:
        user_data = None
    elif new.user_data is not None:
        user_data = _seal(key, new.user_data, user_data)
    kept: Mapping[str, str] = old.get("extensions") or {}
    kinds = dict(_extensions(before))
    sealed: dict[str, str] = {}
    for name, kind in _extensions(model):
        if name in new.protected_settings:
            sealed[name] = _seal(key, new.protected_settings[name], kept.get(name))
        elif (
            name in kept
            and name not in new.clears_protected_settings
            and kinds.get(name, kind) == kind
        ):
            sealed[name] = kept[name]
    secrets: dict[str, Any] = {"customData": custom_data, "extensions": sealed}
    return secrets if user_data is None else {**secrets, "userData": user_data}


def _extensions(model: Mapping[str, Any]) -> list[tuple[str, tuple[str, str]]]:
    """Return the name of each extension, and what it is: its publisher and type."""
    found = at(model, f"{_PROFILE}.extensionProfile.extensions")
    return [
        (str(at(item, "name")).lower(), kind_of(item))
        for item in (found if isinstance(found, list) else [])
    ]


def all_resealed(key: str, secrets: Mapping[str, Any]) -> dict[str, Any]:
    """Return `sealed_secrets` sealed with the first key. Raises SealError."""
    extensions: Mapping[str, str] = secrets.get("extensions") or {}
    sealed: dict[str, Any] = {
        name: None if text is None else resealed(key, text)
        for name, text in secrets.items()
        if name != "extensions"
    }
    if "extensions" in secrets:
        sealed["extensions"] = {name: resealed(key, text) for name, text in extensions.items()}
    return sealed


def _seal(key: str, text: str, old: str | None) -> str:
    if old is not None:
        try:
            if unseal(key, old) == text:
                return old
        except SealError:  # sealed under a key that is gone: agents cannot open it either
            return seal(key, text)
    return seal(key, text)
