"""What runs on each new OS disk: the custom-data script, then the extensions (M06)."""

import base64
import binascii
import json
import posixpath
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from rollcall_contracts.model import Extension, FailureCode, Provisioning
from rollcall_kit.secrets import SealError, unseal

from instance_agent.domain.custom_data import is_for_cloud_init
from instance_agent.domain.record import Disk
from instance_agent.download import AccessDenied, DownloadFailed, download, expired, public_url
from instance_agent.driver import CUSTOM_DATA, Driver, InstanceRef, Script, ScriptResult
from instance_agent.failures import OperationFailed

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioner:
    """Runs scripts in instances; durations are seconds."""

    driver: Driver
    secrets_key: str
    custom_data_timeout: float
    download_timeout: float
    max_download_bytes: int
    scratch: Path  # for files on their way

    async def customize(self, ref: InstanceRef, disk: Disk, provisioning: Provisioning) -> None:
        """Run the custom-data script. Raises OperationFailed (CustomDataExecutionFailed)."""
        content = self.custom_data(ref, provisioning)
        if not content:
            return
        if is_for_cloud_init(content) and not self.driver.capabilities.cloud_init:
            log.warning("custom_data_left_alone", instance_id=ref.instance_id, why="no cloud-init")
            return
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            file = Path(folder) / "script"
            file.touch(mode=0o600)
            file.write_bytes(content)
            program = ("{files}/script",)
            result = await self.driver.run(
                ref,
                disk,
                Script(
                    name=CUSTOM_DATA,
                    # Without a first line that says what runs it, it is the shell's, as on a VM.
                    command=program if content.startswith(b"#!") else ("/bin/sh", *program),
                    files={"script": file},
                    timeout=self.custom_data_timeout,
                    in_root=True,
                ),
            )
        if result.exit_code != 0:
            raise OperationFailed(
                FailureCode.CUSTOM_DATA,
                f"the custom-data script {_ending(result, self.custom_data_timeout)}",
                ref.instance_id,
            )

    def custom_data(self, ref: InstanceRef, provisioning: Provisioning) -> bytes:
        """Return the custom data as it is in the instance; b"" for none. Raises OperationFailed."""
        sealed = provisioning.sealed_custom_data
        if not sealed:
            return b""
        try:
            return base64.b64decode(unseal(self.secrets_key, sealed), validate=True)
        except SealError as error:
            raise OperationFailed(FailureCode.CUSTOM_DATA, str(error), ref.instance_id) from error
        except binascii.Error as error:
            raise OperationFailed(
                FailureCode.CUSTOM_DATA, f"customData is not base64: {error}", ref.instance_id
            ) from error

    async def extend(
        self, ref: InstanceRef, disk: Disk, extension: Extension, number: int, now: datetime
    ) -> None:
        """Run one extension, the `number`-th; one that has no command has nothing to do here.

        Raises OperationFailed: VMExtensionProvisioningError with the extension as target, or
        ResourceAuthenticationFailed with the URI, without its secrets (M40).
        """
        private = self._protected(extension)
        command = _text(extension, private, "commandToExecute")
        if not command:
            return
        uris = _uris(extension, private)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            files: dict[str, Path] = {}
            for uri in uris:
                name = _file_name(extension, uri)
                files[name] = Path(folder) / name
                await self._download(extension, uri, files[name], now)
            result = await self.driver.run(
                ref,
                disk,
                Script(
                    name=f"extension-{number}-{re.sub(r'[^A-Za-z0-9_-]', '_', extension.name)}",
                    command=("/bin/sh", "-c", command),
                    files=files,
                    timeout=extension.timeout,
                ),
            )
        if result.exit_code != 0:
            ending = _ending(result, extension.timeout)
            for secret in _secrets(private, uris):
                ending = ending.replace(secret, "***")
            raise _failed(extension, f"the command {ending}")

    def _protected(self, extension: Extension) -> Mapping[str, Any]:
        if not extension.sealed_protected_settings:
            return {}
        try:
            value = json.loads(unseal(self.secrets_key, extension.sealed_protected_settings))
        except SealError as error:
            raise _failed(extension, str(error)) from error
        except ValueError:
            raise _failed(extension, "protectedSettings are not JSON") from None  # would show them
        if not isinstance(value, dict):
            raise _failed(extension, "protectedSettings are not a JSON object")
        return value

    async def _download(self, extension: Extension, uri: str, file: Path, now: datetime) -> None:
        where = public_url(uri)
        if expired(uri, now):
            raise OperationFailed(
                FailureCode.CREDENTIALS,
                f"extension {extension.name!r}: the shared access signature of {where} has expired;"
                " put a new one into the model and deploy it to the instances",
                where,
            )
        if urlsplit(uri).scheme not in ("http", "https"):
            raise _failed(extension, f"{where}: a fileUri begins with http:// or https://")
        try:
            await download(uri, file, limit=self.max_download_bytes, patience=self.download_timeout)
        except AccessDenied as error:
            raise OperationFailed(
                FailureCode.CREDENTIALS,
                f"extension {extension.name!r}: {error}; put valid credentials into the model and "
                "deploy it to the instances",
                where,
            ) from error
        except DownloadFailed as error:
            raise _failed(extension, str(error)) from error


def _text(extension: Extension, private: Mapping[str, Any], name: str) -> str:
    value = private.get(name) or extension.settings.get(name) or ""
    if not isinstance(value, str):
        raise _failed(extension, f"{name} is not a text")
    return value


def _uris(extension: Extension, private: Mapping[str, Any]) -> list[str]:
    """Return the files to bring along; Azure allows them in either settings."""
    found: list[str] = []
    for settings in (extension.settings, private):
        uris = settings.get("fileUris") or []
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise _failed(extension, "fileUris is not a list of texts")
        found += uris
    return found


def _file_name(extension: Extension, uri: str) -> str:
    name = posixpath.basename(unquote(urlsplit(uri).path))
    if name in ("", ".", "..") or "\0" in name:
        raise _failed(extension, f"{public_url(uri)} names no file")
    return name


def _secrets(private: Mapping[str, Any], uris: list[str]) -> list[str]:
    """Return what a command's output must not carry out of the host."""
    texts = [value for value in private.values() if isinstance(value, str)]
    queries = [urlsplit(uri).query for uri in uris]
    return sorted((text for text in (*texts, *queries) if text), key=len, reverse=True)


def _ending(result: ScriptResult, timeout: float) -> str:
    if result.exit_code is None:
        how = f"did not end within {timeout:g} s and was killed"
    else:
        how = f"ended with exit code {result.exit_code}"
    return f"{how}: {result.output}" if result.output else how


def _failed(extension: Extension, why: str) -> OperationFailed:
    return OperationFailed(
        FailureCode.EXTENSION, f"extension {extension.name!r}: {why}", extension.name
    )
