"""Archives of container images, sound and not, as tables."""

import json
from typing import Any

import pytest
from instance_agent.domain.image_archive import (
    ArchiveError,
    Contents,
    check_platform,
    contents,
    reference,
)

A, B, C, D = (letter * 64 for letter in "abcd")


def look(
    files: dict[str, Any], links: dict[str, str] | None = None, architecture: str = "amd64"
) -> Contents:
    return contents(
        frozenset(files), links or {}, lambda name: json.dumps(files[name]).encode(), architecture
    )


def manifest(**more: Any) -> list[dict[str, Any]]:
    return [{"Config": "c.json", "RepoTags": ["python:3.13"], "Layers": ["1/layer.tar"], **more}]


SAVED = {"manifest.json": manifest(), "c.json": {}, "1/layer.tar": ""}


def blob(digest: str, **more: Any) -> dict[str, Any]:
    return {"digest": f"sha256:{digest}", **more}


LAYOUT = {
    "oci-layout": {},
    "index.json": {"manifests": [blob(A)]},
    f"blobs/sha256/{A}": {"config": blob(B), "layers": [blob(C), blob(D)]},
    f"blobs/sha256/{B}": {},
    f"blobs/sha256/{C}": "",
    f"blobs/sha256/{D}": "",
}
ARM = {"os": "linux", "architecture": "arm64"}
AMD = {"os": "linux", "architecture": "amd64"}


def test_what_docker_save_writes_is_read() -> None:
    assert look(SAVED) == Contents(config="c.json", layers=("1/layer.tar",))


def test_a_layer_that_is_there_twice_is_a_link() -> None:
    files = {**SAVED, "manifest.json": manifest(Layers=["1/layer.tar", "2/layer.tar"])}
    found = look(files, {"2/layer.tar": "../1/layer.tar"})
    assert found.layers == ("1/layer.tar", "1/layer.tar")


def test_an_oci_layout_is_read() -> None:
    expected = Contents(
        config=f"blobs/sha256/{B}", layers=(f"blobs/sha256/{C}", f"blobs/sha256/{D}")
    )
    assert look(LAYOUT) == expected
    nested = {
        **LAYOUT,
        "index.json": {"manifests": [blob("e" * 64)]},
        f"blobs/sha256/{'e' * 64}": {
            "manifests": [blob("f" * 64, platform=ARM), blob(A, platform=AMD)]
        },
    }
    assert look(nested) == expected


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "neither a manifest.json nor an index.json"),
        ({**SAVED, "manifest.json": []}, "holds 0 images"),
        ({**SAVED, "manifest.json": manifest() * 2}, "holds 2 images"),
        ({**SAVED, "manifest.json": {}}, "is no list"),
        ({**SAVED, "manifest.json": manifest(Config=1)}, "has no Config"),
        ({**SAVED, "manifest.json": manifest(Layers=[1])}, "has no Layers"),
        ({**SAVED, "manifest.json": manifest(Layers=["../x"])}, "no file '../x'"),
        ({**SAVED, "manifest.json": manifest(Config="/etc/shadow")}, "no file '/etc/shadow'"),
        ({**LAYOUT, "index.json": {"manifests": []}}, "holds 0 images for linux/amd64"),
        ({**LAYOUT, "index.json": {"manifests": [blob(A, platform=ARM)]}}, "holds 0 images"),
        ({**LAYOUT, "index.json": {"manifests": [blob(A), blob(A)]}}, "holds 2 images"),
        ({**LAYOUT, "index.json": {"manifests": [{"digest": "md5:x"}]}}, "is no digest"),
        ({**LAYOUT, "index.json": []}, "is no list"),
        (
            {**LAYOUT, f"blobs/sha256/{A}": {"manifests": [blob(A)]}},
            "leads to no manifest",
        ),
        ({k: v for k, v in LAYOUT.items() if D not in k}, "no file 'blobs/sha256/d"),
    ],
)
def test_what_is_no_single_image_is_refused(files: dict[str, Any], why: str) -> None:
    with pytest.raises(ArchiveError, match=why):
        look(files)


@pytest.mark.parametrize(
    "document", [b"{", b"\xff", b"[" * 200_000], ids=["cut", "not text", "deep"]
)
def test_a_document_that_is_not_json_is_refused(document: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"manifest\.json is not JSON"):
        contents(frozenset({"manifest.json"}), {}, lambda _: document, "amd64")


@pytest.mark.parametrize(
    "config",
    [b"[]", b"{}", b'{"os": "linux", "architecture": "arm64"}', b'{"os": "windows"}', b"x"],
)
def test_an_image_for_other_machines_is_refused(config: bytes) -> None:
    with pytest.raises(ArchiveError):
        check_platform(config, "amd64")


def test_an_image_for_this_machine_is_taken() -> None:
    config = {"os": "linux", "architecture": "amd64", "config": {}}
    assert check_platform(json.dumps(config).encode(), "amd64") == config


def test_a_reference_names_a_digest() -> None:
    name = f"registry.example:5000/team/web@sha256:{A}"
    assert reference(json.dumps({"reference": name}).encode()) == name
    assert reference(b"PK...") is None


@pytest.mark.parametrize(
    "name", ["web", "web:latest", "web:1@sha256:short", "", 7, f"a b@sha256:{A}", f"@sha256:{A}"]
)
def test_a_reference_by_a_tag_is_refused(name: object) -> None:
    with pytest.raises(ArchiveError, match="by its digest"):
        reference(json.dumps({"reference": name}).encode())
