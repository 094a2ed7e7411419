"""The configuration file: which image feeds are read, and which images may upgrade.

One YAML file for the whole installation (`rollcall up --config FILE`, `ROLLCALL_CONFIG`).
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from rollcall_contracts.model import ImageReference


class ConfigError(ValueError):
    """The configuration file cannot be used; the message names the file and the fault."""


class Section(BaseModel):
    """A part of the file: a key that nobody knows is a mistake, and is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProductMapping(Section):
    """Which products of a feed become which publisher, offer and SKU; the first match counts."""

    match: str  # of the product's name, with * and ?
    publisher: str
    offer: str
    sku: str
    item: str | None = None  # the ftype to take, where a version has several
    # Whose instances boot it: the kind of file follows from that. Instead of `item`.
    driver: Literal["qemu", "libvirt"] | None = None
    os_type: Literal["Linux", "Windows"] = "Linux"

    @model_validator(mode="after")
    def _one_says_which_file(self) -> Self:
        if self.item is not None and self.driver is not None:
            raise ValueError("give `item` or `driver`, not both: each says which file is taken")
        return self


class FeedConfig(Section):
    """One image feed."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    type: Literal["simplestreams", "json"] = "simplestreams"
    url: str  # the mirror's top (simplestreams) or the list itself (json): https://, http://, file://
    keyring: Path | None = None  # the public keys whose signature is trusted
    unsigned: bool = False  # say so to read a feed that nobody signed
    interval: Annotated[float, Field(ge=0.2)] = 300  # seconds between polls
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of the interval
    timeout: Annotated[float, Field(gt=0)] = 30  # seconds for one document
    max_age: Annotated[float, Field(gt=0)] | None = None  # seconds since `updated` before an alarm
    max_bytes: Annotated[int, Field(gt=0)] = 32 * 1024 * 1024  # of one document of the feed
    max_image_bytes: Annotated[int, Field(gt=0)] = 64 * 1024**3
    products: tuple[ProductMapping, ...] = ()

    @model_validator(mode="after")
    def _trust_is_explicit(self) -> Self:
        if self.unsigned == (self.keyring is not None):
            raise ValueError("give either `keyring: FILE` or `unsigned: true`")
        return self

    @field_validator("url")
    @classmethod
    def _url_can_be_read(cls, url: str) -> str:
        if not url.startswith(("https://", "http://", "file:///", "/")):
            raise ValueError(
                f"{url!r} must begin with https://, http:// or file:///, or be an absolute path"
            )
        return url


class CatalogueEntry(Section):
    """Images that may be upgraded automatically (M20); * and ? are wildcards, case is ignored."""

    publisher: str
    offer: str
    sku: str

    def covers(self, image: ImageReference) -> bool:
        """Say whether the entry names this image."""
        return all(
            fnmatchcase(name.lower(), pattern.lower())
            for name, pattern in (
                (image.publisher, self.publisher),
                (image.offer, self.offer),
                (image.sku, self.sku),
            )
        )


# The seed's table of supported images.
SEED_CATALOGUE = (
    CatalogueEntry(publisher="Canonical", offer="UbuntuServer", sku="16.04-LTS"),
    CatalogueEntry(publisher="Canonical", offer="UbuntuServer", sku="18.04-LTS"),
    CatalogueEntry(publisher="OpenLogic", offer="CentOS", sku="7.5"),
    CatalogueEntry(publisher="CoreOS", offer="CoreOS", sku="Stable"),
    CatalogueEntry(
        publisher="MicrosoftWindowsServer", offer="WindowsServer", sku="2012-R2-Datacenter"
    ),
    CatalogueEntry(
        publisher="MicrosoftWindowsServer", offer="WindowsServer", sku="2016-Datacenter"
    ),
    CatalogueEntry(
        publisher="MicrosoftWindowsServer", offer="WindowsServer", sku="2016-Datacenter-Smalldisk"
    ),
    CatalogueEntry(
        publisher="MicrosoftWindowsServer",
        offer="WindowsServer",
        sku="2016-Datacenter-with-Containers",
    ),
)


class Config(Section):
    """The whole file."""

    feeds: tuple[FeedConfig, ...] = ()
    catalogue: tuple[CatalogueEntry, ...] = ()  # beside the seed's own rows
    location: str = "local"  # the Azure location that these hosts are

    def supports(self, image: ImageReference) -> bool:
        """Say whether the image may be upgraded automatically (M20)."""
        return any(entry.covers(image) for entry in (*SEED_CATALOGUE, *self.catalogue))

    @model_validator(mode="after")
    def _feed_names_are_unique(self) -> Self:
        names = [feed.name for feed in self.feeds]
        if len(set(names)) != len(names):
            raise ValueError("two feeds have the same name")
        return self


def load_config(path: str) -> Config:
    """Return the configuration in `path`; an empty path is an empty configuration.

    Raises ConfigError, which names the file and each fault in it.
    """
    if not path:
        return Config()
    try:
        return Config.model_validate(yaml.safe_load(Path(path).read_text()) or {})
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(_fault(fault) for fault in error.errors())
        raise ConfigError(f"{path}: {faults} (keys and values: docs/feeds.md)") from error


def _fault(fault: ErrorDetails) -> str:
    """Say where a fault is and what is wrong, in words of YAML."""
    where = ".".join(str(part) for part in fault["loc"]) or "the file"
    match fault["type"]:
        case "extra_forbidden":
            return f"{where}: no such key; is it a typing error?"
        case "missing":
            return f"{where}: is missing"
        case "string_pattern_mismatch":
            return f"{where}: use small letters, digits, `.`, `_` and `-`, not {fault['input']!r}"
        case "tuple_type":
            return f"{where}: must be a list (lines that begin with `- `)"
        case "model_type" | "model_attributes_type":
            return f"{where}: must be keys with values (`key: value`)"
        case "value_error":
            return f"{where}: {fault['ctx']['error']}"
        case _:
            return f"{where}: {fault['msg']}"
