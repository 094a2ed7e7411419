"""Which parts of a model are secrets: taken out before anything is stored, shown or logged."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rollcall_contracts.model import Failure

from http_api.domain.documents import ModelError, at
from http_api.domain.merging import names

_PROFILE = "properties.virtualMachineProfile"
_CUSTOM_DATA = f"{_PROFILE}.osProfile.customData"
_USER_DATA = f"{_PROFILE}.userData"
_EXTENSIONS = f"{_PROFILE}.extensionProfile.extensions"
# Whatever the level or the spelling: a misplaced secret is still one.
_SECRET_NAMES = frozenset({"adminpassword", "customdata", "userdata", "protectedsettings"})
_MAX_CUSTOM_DATA = 64 * 1024  # bytes of base64, as in Azure


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """A request's secrets in the clear; never stored, never shown."""

    custom_data: str | None = field(default=None, repr=False)  # base64, as the client sent it
    clears_custom_data: bool = False
    user_data: str | None = field(default=None, repr=False)  # base64 too
    clears_user_data: bool = False
    protected_settings: Mapping[str, str] = field(default_factory=dict, repr=False)  # JSON by name
    clears_protected_settings: frozenset[str] = frozenset()  # names of extensions


def take_secrets(body: Mapping[str, Any], *, patch: bool) -> tuple[dict[str, Any], Secrets]:
    """Return the body without its secrets, and those that Rollcall needs.

    A null takes a secret away in a PATCH; in a PUT it is what a client wrote back of what it read,
    which had none. Passwords are dropped: nothing here ever uses them. Raises ModelError.
    """
    custom_data, user_data = at(body, _CUSTOM_DATA), at(body, _USER_DATA)
    for value, place in ((custom_data, _CUSTOM_DATA), (user_data, _USER_DATA)):
        if value:
            _check_base64(value, place)
    secrets = Secrets(
        custom_data=custom_data or None,
        clears_custom_data=custom_data == ""
        or (patch and names(body, _CUSTOM_DATA) and custom_data is None),
        user_data=user_data or None,
        clears_user_data=user_data == ""
        or (patch and names(body, _USER_DATA) and user_data is None),
        protected_settings=_protected_settings(body),
        clears_protected_settings=_cleared_settings(body) if patch else frozenset(),
    )
    return redacted(body), secrets


def _check_base64(value: Any, place: str) -> None:
    try:
        if not isinstance(value, str) or len(value) > _MAX_CUSTOM_DATA:
            raise ValueError
        base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        # The cause is left out on purpose: its text could carry a piece of the secret.
        raise ModelError(
            Failure(
                code="InvalidParameter",
                message=f"{place.rpartition('.')[2]} must be base64 of at most "
                f"{_MAX_CUSTOM_DATA} characters",
                target=place,
            )
        ) from None


def _protected_settings(body: Mapping[str, Any]) -> dict[str, str]:
    extensions = at(body, _EXTENSIONS)
    found: dict[str, str] = {}
    for extension in extensions if isinstance(extensions, list) else []:
        name, settings = at(extension, "name"), at(extension, "properties.protectedSettings")
        if settings is None or not isinstance(name, str):
            continue
        if not isinstance(settings, Mapping):
            raise ModelError(
                Failure(
                    code="InvalidParameter",
                    message="protectedSettings must be an object",
                    target=f"{_EXTENSIONS}[{name}].properties.protectedSettings",
                )
            )
        found[name.lower()] = json.dumps(settings)
    return found


def _cleared_settings(body: Mapping[str, Any]) -> frozenset[str]:
    extensions = at(body, _EXTENSIONS)
    return frozenset(
        str(at(extension, "name")).lower()
        for extension in (extensions if isinstance(extensions, list) else [])
        if names(extension, "properties.protectedSettings")
        and at(extension, "properties.protectedSettings") is None
    )


def redacted(value: Any) -> Any:
    """Return a document without anything that is named as a secret, whatever its place."""
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: _without_contents(item)
        if key.lower() == "additionalunattendcontent"
        else item
        if key in ("tags", "settings")  # the user's own words, not ARM's
        else redacted(item)
        for key, item in value.items()
        if key.lower() not in _SECRET_NAMES
    }


def _without_contents(items: Any) -> Any:
    if not isinstance(items, list):
        return items
    return [
        {key: each for key, each in item.items() if key.lower() != "content"}
        if isinstance(item, Mapping)
        else item
        for item in items
    ]
