"""`rollcall feed`: author a feed of one's own images in a folder that any web server can serve."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rollcall_cli.feeds.folder import (
    INDEX,
    Added,
    FeedFolderError,
    add_image,
    init_feed,
    withdraw_image,
)
from rollcall_cli.feeds.signing import make_signing_key, sign_feed

__all__ = [
    "Added",
    "FeedFolderError",
    "add_image",
    "app",
    "init_feed",
    "make_signing_key",
    "sign_feed",
    "withdraw_image",
]

app = typer.Typer(no_args_is_help=True, help="Author a feed of your own images in a folder.")

Folder = Annotated[Path, typer.Argument(help="The feed's folder.")]
Publisher = Annotated[str, typer.Option("--publisher", help="Publisher of the image.")]
OfferName = Annotated[str, typer.Option("--offer", help="Offer of the image.")]
Sku = Annotated[str, typer.Option("--sku", help="SKU of the image.")]


class OsType(StrEnum):
    """What runs on the image."""

    LINUX = "Linux"
    WINDOWS = "Windows"


@app.command()
def init(folder: Folder) -> None:
    """Make an empty feed."""
    with _errors():
        init_feed(folder)
    print(f"{folder}: is a feed; serve it with any web server, or read it as file://")


@app.command()
def add(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="The image file.", exists=True, dir_okay=False)],
    publisher: Publisher,
    offer: OfferName,
    sku: Sku,
    version: Annotated[str, typer.Option("--version", help="A new version, such as 1.0.10.")],
    os_type: Annotated[OsType, typer.Option("--os-type")] = OsType.LINUX,
    exclude_from_latest: Annotated[
        bool, typer.Option("--exclude-from-latest", help="Never choose it as `latest`.")
    ] = False,
) -> None:
    """Copy an image file into the feed as a new version."""
    with _errors():
        added = add_image(
            folder,
            file,
            publisher=publisher,
            offer=offer,
            sku=sku,
            version=version,
            os_type=os_type.value,
            exclude_from_latest=exclude_from_latest,
        )
    word = "added" if added.changed else "was there already"
    print(f"{added.product} {added.version}: {word} ({added.size} bytes, sha256 {added.sha256})")
    _remind(folder)


@app.command()
def withdraw(
    folder: Folder,
    version: Annotated[str, typer.Argument(help="The version to take out, for good.")],
    publisher: Publisher,
    offer: OfferName,
    sku: Sku,
) -> None:
    """Take a version out of the feed, for good: rollouts of it stop."""
    with _errors():
        withdraw_image(folder, publisher=publisher, offer=offer, sku=sku, version=version)
    print(f"{publisher}:{offer}:{sku} {version}: withdrawn")
    _remind(folder)


@app.command()
def sign(
    folder: Folder,
    key: Annotated[str, typer.Option("--key", help="The signing key, as gpg names it.")],
    gnupghome: Annotated[
        Path | None, typer.Option("--gnupghome", help="Folder of gpg's keys, if not your own.")
    ] = None,
    keyring_out: Annotated[
        Path | None, typer.Option("--keyring-out", help="Write the public key to this file.")
    ] = None,
) -> None:
    """Sign the feed's documents with gpg (.sjson); repeat after each change."""
    with _errors():
        sign_feed(folder, key=key, gnupghome=gnupghome, keyring_out=keyring_out)
    print(f"{folder}: signed")


def _remind(folder: Path) -> None:
    if (folder / INDEX).with_suffix(".sjson").exists():
        print("The feed is signed: readers see the change after `rollcall feed sign`.")


@contextmanager
def _errors() -> Iterator[None]:
    """Turn an expected error into a sentence and exit code 1."""
    try:
        yield
    except (FeedFolderError, OSError) as error:
        typer.echo(f"rollcall feed: {error}", err=True)
        raise typer.Exit(1) from error
