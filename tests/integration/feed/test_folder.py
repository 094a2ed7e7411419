"""`rollcall feed`: a folder that readers can trust at any instant."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from image_publisher.domain.parse import as_three_names
from image_publisher.domain.simplestreams import parse_index, parse_products
from image_publisher.signature import read_keyring, verify
from rollcall_cli.feed import (
    Added,
    FeedFolderError,
    add_image,
    app,
    init_feed,
    make_signing_key,
    sign_feed,
    withdraw_image,
)
from typer.testing import CliRunner

PRODUCT = "Acme:app:stable"


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    folder = tmp_path / "feed"
    init_feed(folder)
    return folder


def add(feed: Path, version: str, content: bytes = b"hello", **changes: Any) -> Added:
    file = feed.parent / "app.tar.gz"
    file.write_bytes(content)
    names = {"publisher": "Acme", "offer": "app", "sku": "stable", **changes}
    return add_image(feed, file, version=version, **names)


def withdraw(feed: Path, version: str) -> None:
    withdraw_image(feed, publisher="Acme", offer="app", sku="stable", version=version)


def document(feed: Path, name: str = "images.json") -> dict[str, Any]:
    found = json.loads((feed / "streams/v1" / name).read_text())
    assert isinstance(found, dict)
    return found


def versions(feed: Path) -> list[str]:
    """Return what the publisher's own parsers find in the folder."""
    index = parse_index((feed / "streams/v1/index.json").read_text())
    (reference,) = index.references
    page = parse_products(
        (feed / reference.path).read_text(),
        path=reference.path,
        top=feed.as_uri(),
        choose=as_three_names,
        max_image_bytes=10**9,
    )
    assert page.refused == ()
    return sorted(one.image.version for one in page.offered)


def test_an_added_file_is_served_whole(feed: Path) -> None:
    added = add(feed, "1.0.0")
    file = feed / added.path
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"hello", 0o644)
    assert (added.sha256, added.size) == (hashlib.sha256(b"hello").hexdigest(), 5)
    assert versions(feed) == ["1.0.0"]
    assert [path.name for path in feed.rglob(".*")] == [".lock"]  # no temporary file stays


def test_updated_grows_with_each_change_even_in_one_second(feed: Path) -> None:
    times = [document(feed)["updated"]]
    for number in range(5):
        add(feed, f"1.{number}")
        assert document(feed, "index.json")["updated"] == document(feed)["updated"]
        times.append(document(feed)["updated"])
    withdraw(feed, "1.0")
    times.append(document(feed)["updated"])
    read = [parsedate_to_datetime(time) for time in times]
    assert read == sorted(set(read))


def test_the_same_file_again_changes_nothing(feed: Path) -> None:
    first = add(feed, "1.0.0")
    before = document(feed)
    again = add(feed, "1.0.0")
    assert (first.changed, again.changed, again.sha256) == (True, False, first.sha256)
    assert document(feed) == before
    init_feed(feed)
    assert document(feed) == before


def test_a_versions_content_never_changes(feed: Path) -> None:
    add(feed, "1.0.0")
    before = document(feed)
    with pytest.raises(FeedFolderError, match="never changes"):
        add(feed, "1.0.0", b"other")
    assert document(feed) == before
    assert (feed / "images/Acme/app/stable/1.0.0/app.tar.gz").read_bytes() == b"hello"


def test_a_withdrawn_version_cannot_come_back(feed: Path) -> None:
    add(feed, "1")
    add(feed, "2")
    withdraw(feed, "2")
    withdraw(feed, "2")
    assert versions(feed) == ["1"]
    assert (feed / "images/Acme/app/stable/2/app.tar.gz").exists()
    with pytest.raises(FeedFolderError, match="new version"):
        add(feed, "2")
    with pytest.raises(FeedFolderError, match="no version 3"):
        withdraw(feed, "3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "latest"}, "version 'latest'"),
        ({"version": "../1"}, "version"),
        ({"version": ""}, "version"),
        ({"version": "1.00"}, "cannot be told in order"),
        ({"publisher": "A/B"}, "publisher"),
        ({"offer": ".."}, "offer"),
        ({"sku": "a:b"}, "SKU"),
        ({"publisher": "acme"}, "case"),
        ({"os_type": "Windows"}, "osType"),
    ],
)
def test_what_readers_would_refuse_is_not_added(
    feed: Path, changes: dict[str, Any], message: str
) -> None:
    add(feed, "1.0")
    before = document(feed)
    with pytest.raises(FeedFolderError, match=message):
        add(feed, **{"version": "2", **changes})
    assert document(feed) == before


def test_a_folder_that_is_no_feed_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        file = tmp_path / "a"
        file.write_bytes(b"x")
        with pytest.raises(FeedFolderError, match="rollcall feed init"):
            add_image(folder, file, publisher="a", offer="b", sku="c", version="1")


def test_a_damaged_folder_is_named(feed: Path) -> None:
    (feed / "streams/v1/images.json").write_text("{")
    with pytest.raises(FeedFolderError, match="not JSON"):
        add(feed, "1")


def test_commands_at_once_lose_nothing(feed: Path) -> None:
    def one(number: int) -> Added:
        file = feed.parent / f"app-{number}.tar.gz"
        file.write_text(str(number))
        return add_image(
            feed, file, publisher="Acme", offer="app", sku="stable", version=f"1.{number}"
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(16)))
    assert len(versions(feed)) == 16


KILLED = """
import os, sys
from pathlib import Path
from rollcall_cli.feed import add_image
left = int(sys.argv[3])
replace = os.replace
def replace_or_die(*arguments):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    replace(*arguments)
os.replace = replace_or_die
names = {"publisher": "Acme", "offer": "app", "sku": "stable"}
add_image(Path(sys.argv[1]), Path(sys.argv[2]), version="2", **names)
"""


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_a_command_that_is_killed_leaves_a_good_feed(feed: Path, renames: int) -> None:
    add(feed, "1")
    file = feed.parent / "app.tar.gz"
    command = [sys.executable, "-c", KILLED, str(feed), str(file), str(renames)]
    done = subprocess.run(command, timeout=60)
    assert done.returncode == (9 if renames < 3 else 0)
    assert versions(feed) in (["1"], ["1", "2"])
    add(feed, "2", file.read_bytes())
    assert versions(feed) == ["1", "2"]
    add(feed, "3")
    assert document(feed, "index.json")["updated"] == document(feed)["updated"]


def test_a_feed_is_signed_and_leaves_no_agent(feed: Path, tmp_path: Path) -> None:
    home, ring = tmp_path / ("long" * 40), tmp_path / "ring.gpg"
    key = make_signing_key(home, "feed test")
    add(feed, "1")
    sign_feed(feed, key=key, gnupghome=home, keyring_out=ring)
    texts = {
        name: verify(
            (feed / "streams/v1" / name).read_bytes(),
            read_keyring(ring),
            url=name,
            max_bytes=10**6,
            timeout=20,
        )
        for name in ("index.sjson", "images.sjson")
    }
    assert json.loads(texts["images.sjson"]) == document(feed)
    (reference,) = parse_index(texts["index.sjson"].decode()).references
    assert reference.path == "streams/v1/images.sjson"
    assert not list(home.glob("S.*"))  # an agent's sockets go with it
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_key_that_is_not_there_is_named(feed: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with pytest.raises(FeedFolderError, match="gpg failed"):
        sign_feed(feed, key="nobody", gnupghome=home)
    assert not (feed / "streams/v1/index.sjson").exists()


def test_a_missing_gpg_names_its_package(
    feed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FeedFolderError, match="package `gnupg`"):
        sign_feed(feed, key="x")


def test_the_commands(tmp_path: Path) -> None:
    folder, file = tmp_path / "feed", tmp_path / "app.tar.gz"
    file.write_bytes(b"hello")
    names = ["--publisher", "Acme", "--offer", "app", "--sku", "stable"]
    home = tmp_path / "home"
    key = make_signing_key(home, "feed test")

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.output

    assert run("init", str(folder))[0] == 0
    code, output = run("add", str(folder), *names, "--version", "1.0.0", str(file))
    assert (code, f"{PRODUCT} 1.0.0: added" in output) == (0, True)
    assert run("add", str(folder), *names, "--version", "1.0.1", str(file))[0] == 0
    sign = ["sign", str(folder), "--key", key, "--gnupghome", str(home)]
    assert run(*sign, "--keyring-out", str(tmp_path / "ring.gpg"))[0] == 0
    code, output = run("withdraw", str(folder), *names, "1.0.1")
    assert (code, "rollcall feed sign" in output) == (0, True)
    assert versions(folder) == ["1.0.0"]
    file.write_bytes(b"other")
    code, output = run("add", str(folder), *names, "--version", "1.0.0", str(file))
    assert (code, "never changes" in output) == (1, True)
    assert os.access(tmp_path / "ring.gpg", os.R_OK)
