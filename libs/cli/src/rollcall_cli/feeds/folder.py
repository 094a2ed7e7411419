"""A simplestreams folder of one's own images: `init`, `add` and `withdraw`.

    FOLDER/streams/v1/index.json            names the products document
    FOLDER/streams/v1/images.json           products named publisher:offer:sku, their versions
    FOLDER/images/<publisher>/<offer>/<sku>/<version>/<file>

Every file appears whole, by a rename, and what points to it is written after it, the index last: a
reader, or a crash at any instant, never sees a version whose file is not there. A lock keeps two
commands apart. `updated` grows with each change, as readers ask, even within one second.
"""

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from rollcall_contracts.model import LATEST
from rollcall_contracts.versions import version_key

INDEX = "streams/v1/index.json"
PRODUCTS = "streams/v1/images.json"
CONTENT_ID = "rollcall:images"
ITEM = "image"  # the ftype of the one file that a version has

# What image-publisher accepts; a feed that it would refuse must not come into being.
_VERSION = re.compile(r"[0-9A-Za-z]+([._+-][0-9A-Za-z]+)*")
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*")
_FILE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]*")
_NAME_LIMIT = 128


class FeedFolderError(ValueError):
    """A feed's folder cannot be written as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """One version as it stands in the folder; `changed` is false where it was there before."""

    product: str
    version: str
    path: str
    sha256: str
    size: int
    changed: bool


def init_feed(folder: Path) -> None:
    """Make an empty feed; a feed that is there already stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if (folder / INDEX).exists():
            return
        products = read_document(folder, PRODUCTS) if (folder / PRODUCTS).exists() else _empty()
        _save(folder, products)


def add_image(
    folder: Path,
    file: Path,
    *,
    publisher: str,
    offer: str,
    sku: str,
    version: str,
    os_type: Literal["Linux", "Windows"] = "Linux",
    exclude_from_latest: bool = False,
) -> Added:
    """Copy an image file into the feed as a new version, and name it in the products and index.

    The same file added again changes nothing. Raises FeedFolderError: a version that is there with
    other content, or was withdrawn; a name that readers would refuse; a folder that is no feed.
    """
    check_names(publisher, offer, sku, version)
    if not _FILE_NAME.fullmatch(file.name):
        raise FeedFolderError(f"{file.name!r}: rename the file, using letters, digits and `._+-`")
    product = f"{publisher}:{offer}:{sku}"
    path = f"images/{publisher}/{offer}/{sku}/{version}/{file.name}"
    with locked(folder):
        products = read_document(folder, PRODUCTS)
        entry = _product(products, product, os_type)
        _check_version(entry, product, version)
        before = entry["versions"].get(version)
        if before is not None:
            return _unchanged(before, product, version, file)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as source, _replacing(target) as copy:
            sha256, size = _copy(source, copy)
        item = {"ftype": ITEM, "path": path, "size": size, "sha256": sha256}
        level: dict[str, Any] = {"items": {ITEM: item}}
        if exclude_from_latest:
            level["exclude_from_latest"] = True
        entry["versions"][version] = level
        _save(folder, products)
    return Added(
        product=product, version=version, path=path, sha256=sha256, size=size, changed=True
    )


def withdraw_image(folder: Path, *, publisher: str, offer: str, sku: str, version: str) -> None:
    """Take a version out of the feed, for good; its file stays for hosts that still run it.

    Raises FeedFolderError when the feed has no such version.
    """
    product = f"{publisher}:{offer}:{sku}"
    with locked(folder):
        products = read_document(folder, PRODUCTS)
        entry = products["products"].get(product)
        if entry is None or version not in entry["versions"]:
            if entry is not None and version in entry.get("withdrawn", []):
                return  # a command that was cut off after its work, and is repeated
            raise FeedFolderError(f"{folder}: has no version {version} of {product}")
        del entry["versions"][version]
        entry["withdrawn"] = [*entry.get("withdrawn", []), version]
        _save(folder, products)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands away from the folder. Raises FeedFolderError where there is none."""
    if not folder.is_dir():
        raise FeedFolderError(f"{folder}: is no folder; make a feed with `rollcall feed init`")
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_document(folder: Path, path: str) -> dict[str, Any]:
    """Return one of the folder's documents. Raises FeedFolderError."""
    try:
        document = json.loads((folder / path).read_text())
    except FileNotFoundError as error:
        raise FeedFolderError(
            f"{folder}: has no {path}; make a feed with `rollcall feed init`"
        ) from error
    except ValueError as error:
        raise FeedFolderError(f"{folder / path}: is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise FeedFolderError(f"{folder / path}: is not a JSON object")
    return document


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as file:
        file.write(content)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # a web server reads it under another account
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename too must outlive a power cut before something points to it
    finally:
        os.close(folder)


def _save(folder: Path, products: dict[str, Any]) -> None:
    """Write the products and then the index, both with an `updated` above all before."""
    updated = format_datetime(_next_updated(folder, products))
    products["updated"] = updated
    index = {
        "format": "index:1.0",
        "updated": updated,
        "index": {
            CONTENT_ID: {
                "datatype": "image-downloads",
                "format": "products:1.0",
                "path": PRODUCTS,
                "updated": updated,
                "products": sorted(products["products"]),
            }
        },
    }
    write_atomically(folder / PRODUCTS, _json(products))
    write_atomically(folder / INDEX, _json(index))


def _next_updated(folder: Path, products: dict[str, Any]) -> datetime:
    """Return the time of a change; the format has whole seconds, so it may run ahead a little."""
    now = datetime.now(UTC).replace(microsecond=0)
    index = read_document(folder, INDEX) if (folder / INDEX).exists() else {}
    for document in (products, index):
        if "updated" in document:
            before = parsedate_to_datetime(document["updated"])
            now = max(now, before + timedelta(seconds=1))
    return now


def _empty() -> dict[str, Any]:
    return {
        "format": "products:1.0",
        "datatype": "image-downloads",
        "content_id": CONTENT_ID,
        "products": {},
    }


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()


def _product(products: dict[str, Any], product: str, os_type: str) -> dict[str, Any]:
    for name, entry in products["products"].items():
        if name.lower() == product.lower() and name != product:
            raise FeedFolderError(f"{product}: the feed has it as {name}; case makes no difference")
        if name == product and entry["os_type"] != os_type:
            raise FeedFolderError(f"{product}: the feed has it with osType {entry['os_type']}")
    entry = products["products"].setdefault(product, {"os_type": os_type, "versions": {}})
    return dict_of(entry)


def dict_of(value: object) -> dict[str, Any]:
    """Return a JSON object as such. Raises FeedFolderError for anything else."""
    if not isinstance(value, dict):
        raise FeedFolderError(f"the feed's documents were damaged: {value!r} is not a JSON object")
    return value


def check_names(publisher: str, offer: str, sku: str, version: str) -> None:
    """Raise FeedFolderError for a name that image-publisher would refuse."""
    for name, what in ((publisher, "publisher"), (offer, "offer"), (sku, "SKU")):
        if not _NAME.fullmatch(name) or len(name) > _NAME_LIMIT:
            raise FeedFolderError(f"{what} {name!r}: use letters, digits, `.`, `_` and `-`")
    if not _VERSION.fullmatch(version) or len(version) > _NAME_LIMIT or version.lower() == LATEST:
        raise FeedFolderError(
            f"version {version!r}: use numbers with dots, such as 1.0.10 or 20240501.2"
        )


def _check_version(entry: dict[str, Any], product: str, version: str) -> None:
    if version in entry.get("withdrawn", []):
        raise FeedFolderError(
            f"{product} {version}: was withdrawn and cannot come back; give its content a new "
            "version"
        )
    for other in entry["versions"]:
        if other != version and version_key(other) == version_key(version):
            raise FeedFolderError(f"{product} {version}: cannot be told in order from {other}")


def _unchanged(before: dict[str, Any], product: str, version: str, file: Path) -> Added:
    item = before["items"][ITEM]
    with file.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    if sha256 != item["sha256"]:
        raise FeedFolderError(
            f"{product} {version}: is in the feed with sha256 {item['sha256']}, and {file} has "
            f"{sha256}; a version's content never changes: add it under a new version"
        )
    return Added(
        product=product,
        version=version,
        path=item["path"],
        sha256=sha256,
        size=item["size"],
        changed=False,
    )


def _copy(source: BinaryIO, target: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(1024 * 1024):
        target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
