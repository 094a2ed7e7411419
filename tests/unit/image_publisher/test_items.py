"""Which file of a version is taken for a driver, from documents as mirrors publish them."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from image_publisher.domain.compare import compare
from image_publisher.domain.feed import FeedCode, Known, Page, Target, gather
from image_publisher.domain.items import BOOTABLE, wanted_kinds
from image_publisher.domain.simplestreams import parse_products
from image_publisher.formats import chooser
from pydantic import ValidationError
from rollcall_kit.config import FeedConfig

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def file(place: str, ftype: str) -> dict[str, Any]:
    digest = hashlib.sha256(place.encode())
    return {
        "ftype": ftype,
        "path": place,
        "md5": digest.hexdigest()[:32],
        "sha256": digest.hexdigest(),
        "size": len(place),
    }


def ubuntu(release: str, serial: str, *kinds: str) -> dict[str, Any]:
    """One version as Ubuntu's mirror has it, with files of these kinds and the usual one."""
    names = {
        "disk1.img": f"ubuntu-{release}-server-cloudimg-amd64.img",
        "disk-kvm.img": f"ubuntu-{release}-server-cloudimg-amd64-disk-kvm.img",
    }
    usual = ("manifest", *kinds)
    return {
        "label": "release",
        "pubname": f"ubuntu-jammy-{release}-amd64-server-{serial}",
        "items": {
            kind: file(
                f"server/releases/jammy/release-{serial}/"
                + names.get(kind, f"ubuntu-{release}-server-cloudimg-amd64.{kind}"),
                kind,
            )
            for kind in usual
        },
    }


OTHER_KINDS = (
    *("azure.vhd.tar.gz", "lxd.tar.xz", "ova", "root.tar.xz", "squashfs", "squashfs.manifest"),
    *("tar.gz", "vmdk"),
)
PRODUCT = "com.ubuntu.cloud:server:22.04:amd64"


def document(versions: dict[str, Any], product: str = PRODUCT) -> str:
    return json.dumps(
        {
            "content_id": "com.ubuntu.cloud:released:download",
            "datatype": "image-downloads",
            "format": "products:1.0",
            "license": "http://www.canonical.com/intellectual-property-policy",
            "updated": "Wed, 01 Jan 2025 10:00:00 +0000",
            "products": {
                product: {
                    "aliases": "22.04,default,j,jammy,lts",
                    "arch": "amd64",
                    "os": "ubuntu",
                    "release": "jammy",
                    "release_codename": "Jammy Jellyfish",
                    "release_title": "22.04 LTS",
                    "support_eol": "2027-06-01",
                    "supported": True,
                    "version": "22.04",
                    "versions": versions,
                }
            },
        }
    )


def parse(text: str, *, driver: str | None = None, item: str | None = None) -> Page:
    target = Target(
        publisher="Canonical", offer="Ubuntu", sku="22.04", items=wanted_kinds(item, driver)
    )
    return parse_products(
        text,
        path="streams/v1/com.ubuntu.cloud:released:download.sjson",
        top="https://m/releases",
        choose=lambda _: target,
        max_image_bytes=10**9,
    )


def kinds_taken(page: Page) -> dict[str, str]:
    return {
        one.image.version: next(kind for kind in ALL if one.location.endswith(kind))
        for one in page.offered
    }


ALL = ("disk-kvm.img", "uefi1.img", "root.tar.xz", "squashfs", "vmdk", "amd64.img")


@pytest.mark.parametrize(
    ("there", "driver", "taken"),
    [
        (("disk1.img", "disk-kvm.img", *OTHER_KINDS), "qemu", "amd64.img"),
        (("disk1.img", "disk-kvm.img", *OTHER_KINDS), "libvirt", "amd64.img"),
        (("disk-kvm.img", *OTHER_KINDS), "qemu", "disk-kvm.img"),
        (("uefi1.img", "disk1.img", *OTHER_KINDS), "libvirt", "amd64.img"),
        (("uefi1.img", *OTHER_KINDS), "libvirt", "uefi1.img"),
        (("uefi1.img", *OTHER_KINDS), "qemu", None),  # it would not boot by BIOS
        (OTHER_KINDS, "qemu", None),
        (OTHER_KINDS, "libvirt", None),
    ],
)
def test_the_file_that_a_driver_boots_is_taken(
    there: tuple[str, ...], driver: str, taken: str | None
) -> None:
    page = parse(document({"20240501": ubuntu("22.04", "20240501", *there)}), driver=driver)
    assert page.refused == ()  # a version without such a file is none of ours
    assert kinds_taken(page) == ({"20240501": taken} if taken else {})
    assert len(page.present) == 1


def test_an_image_server_of_lxd_offers_its_virtual_machines() -> None:
    version = {
        "items": {
            "disk.qcow2": file("images/debian/bookworm/amd64/default/1/disk.qcow2", "disk-kvm.img"),
            "lxd.tar.xz": file("images/debian/bookworm/amd64/default/1/lxd.tar.xz", "lxd.tar.xz"),
            "root.squashfs": file("images/debian/bookworm/1/rootfs.squashfs", "squashfs"),
        }
    }
    (one,) = parse(document({"20240501_05:24": version, "1": version}), driver="qemu").offered
    assert (one.image.version, one.location.rpartition("/")[2]) == ("1", "disk.qcow2")


def test_a_kind_by_name_is_taken_alone_and_two_of_a_kind_are_not_guessed() -> None:
    version = ubuntu("22.04", "1", "disk1.img", "disk-kvm.img", "squashfs")
    assert kinds_taken(parse(document({"1": version}), item="disk-kvm.img")) == {
        "1": "disk-kvm.img"
    }
    assert parse(document({"1": version}), item="uefi1.img").offered == ()
    version["items"]["again"] = file("other.img", "disk1.img")
    (refused,) = parse(document({"1": version}), driver="qemu").refused
    assert refused.code == FeedCode.AMBIGUOUS


def test_a_bad_file_that_nobody_asked_for_spoils_nothing() -> None:
    version = ubuntu("22.04", "1", "disk1.img", "disk-kvm.img")
    version["items"]["disk-kvm.img"]["path"] = "../../etc/shadow"
    page = parse(document({"1": version}), driver="qemu")
    assert (kinds_taken(page), page.refused) == ({"1": "amd64.img"}, ())
    # But the one that is asked for does; the next best is not taken in its place.
    version["items"]["disk1.img"]["sha256"] = "none"
    page = parse(document({"1": version}), driver="qemu")
    assert [one.code for one in page.refused] == [FeedCode.CHECKSUM_MISSING]


def test_a_better_file_that_comes_later_is_no_change_of_the_version() -> None:
    first = gather(parse(document({"1": ubuntu("22.04", "1", "disk-kvm.img")}), driver="qemu"))
    begun = compare((), first, feed="f", seen={}, now=NOW)
    (published,) = begun.published
    known = Known(offered=published, feed="f")
    both = ubuntu("22.04", "1", "disk1.img", "disk-kvm.img")
    later = compare(
        (known,),
        gather(parse(document({"1": both}), driver="qemu")),
        feed="f",
        seen={},
        now=NOW,
    )
    assert (later.published, later.withdrawn, later.refreshed, later.problems) == ((), (), (), ())
    # The file that was published is still what counts.
    both["items"]["disk-kvm.img"]["sha256"] = "c" * 64
    changed = compare(
        (known,),
        gather(parse(document({"1": both}), driver="qemu")),
        feed="f",
        seen={},
        now=NOW,
    )
    assert [one.known for one in changed.withdrawn] == [known]


def test_the_configuration_says_item_or_driver() -> None:
    mapping = {"match": "*:amd64", "publisher": "C", "offer": "U", "sku": "1"}
    feed = {"name": "f", "url": "https://m", "unsigned": True}
    config = FeedConfig.model_validate({**feed, "products": [{**mapping, "driver": "qemu"}]})
    target = chooser(config)(PRODUCT)
    assert target is not None
    assert target.items == BOOTABLE["qemu"]
    with pytest.raises(ValidationError, match="not both"):
        FeedConfig.model_validate(
            {**feed, "products": [{**mapping, "driver": "qemu", "item": "disk1.img"}]}
        )
