"""What goes wrong with files on their way: cut off, rewritten, or made by somebody with a plan."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Put other content into a file, in one step for its readers."""
    fresh = path.with_name(f".{path.name}.spoilt")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def halve(path: Path) -> None:
    """Cut a file off in its middle."""
    content = path.read_bytes()
    replace_file(path, content[: len(content) // 2])


def rewrite_version(products: Path, version: str, content: bytes) -> None:
    """Say in a simplestreams document of one product that a version has this content."""
    document = json.loads(products.read_text())
    (product,) = document["products"].values()
    (item,) = product["versions"][version]["items"].values()
    item.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    replace_file(products, json.dumps(document).encode())


def add_members(image: Path, *members: tuple[str, str | None]) -> None:
    """Append members to a tar.gz: symbolic links, or empty files where the target is None."""
    raw = io.BytesIO(gzip.decompress(image.read_bytes()))
    with tarfile.open(fileobj=raw, mode="a") as tar:
        for name, target in members:
            member = tarfile.TarInfo(name)
            if target is not None:
                member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    replace_file(image, gzip.compress(raw.getvalue(), mtime=0))
