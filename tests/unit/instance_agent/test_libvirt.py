"""What the libvirt driver makes of XML, without any libvirt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instance_agent.domain.libvirt.adoption import Adoption, in_natural_order, parse_adoptions
from instance_agent.domain.libvirt.claim import Claim, Kept, read_claim, write_claim
from instance_agent.domain.libvirt.domains import (
    DomainXml,
    data_disks,
    os_disk,
    place_of,
    same_but,
    target_name,
)
from instance_agent.domain.record import Disk

DOMAIN = """<domain type='qemu'><name>x</name>
  <metadata><a:b xmlns:a="urn:other">t</a:b></metadata><devices>
  <disk type='file' device='cdrom'><target dev='sda'/></disk>
  <disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/>
    <source dev='/dev/x'/><backingStore/><target dev='vda'/><iotune><a/></iotune></disk>
  <disk type='file' device='disk'><source file='/d'/><target dev='vdb'/></disk>
  <disk type='file' device='disk'>
    <source file='/e'/><target dev='vdc'/><serial>data-0</serial></disk>
  <disk type='block' device='lun'><source dev='/dev/y'/><target dev='sdb'/></disk>
</devices></domain>"""

words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1)


@given(path=words, version=words, name=words)
def test_facts_come_back_as_they_were_written(path: str, version: str, name: str) -> None:
    source = place_of(f"/{path}", block=False, format="qcow2")
    kept = Kept(
        disk=Disk(name=name, version=version, generation=3, digest="d"),
        source=source,
        seed=source,
        volumes=("a", "b"),
        base="c",
    )
    claim = Claim(scale_set=path, instance_id=name, host="h", adopted=True, disks=(kept,))
    assert read_claim(write_claim(claim)) == claim
    domain = DomainXml(DOMAIN)
    domain.point("vda", source)
    assert claim.at(DomainXml(domain.text()).disks()[1].source) == kept


def test_a_swap_and_back_leaves_everything_as_it_was() -> None:
    domain = DomainXml(DOMAIN)
    before = domain.disks()[1].source
    assert before is not None
    domain.point("vda", place_of("/new", block=False, format="qcow2"))
    assert same_but(DOMAIN, domain.text(), ["vda"])
    assert not same_but(DOMAIN, domain.text(), [])
    domain.point("vda", before)
    assert same_but(DOMAIN, domain.text(), [])


def test_which_disk_is_which() -> None:
    domain = DomainXml(DOMAIN)
    assert os_disk(domain) == "vda"
    found = data_disks(domain, Claim(scale_set="s", os_target="vda"))
    assert {lun: disk.target for lun, disk in found.items()} == {
        0: "vdc",
        1: "vdb",
        2: "sdb",
    }
    assert [target_name(each) for each in (0, 25, 26, 701)] == ["vda", "vdz", "vdaa", "vdzz"]


def test_rules_of_adoption() -> None:
    (rule,) = parse_adoptions("web-*=Web@1.0.0")
    assert rule == Adoption(pattern="web-*", scale_set="Web", version="1.0.0")
    assert rule.fits("web-1", "/s/virtualMachineScaleSets/web")
    assert not rule.fits("db-1", "/s/virtualMachineScaleSets/web")
    assert not rule.fits("web-1", "/s/virtualMachineScaleSets/webs")
    assert sorted(["w-10", "w-2", "w"], key=in_natural_order) == ["w", "w-2", "w-10"]
    for wrong in ("web", "=web", "web=", "web=a@"):
        with pytest.raises(ValueError, match="write PATTERN=SCALE-SET"):
            parse_adoptions(wrong)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<instance/>", "no scaleSet"),
        ("<instance scaleSet='s' port='x'/>", "port 'x' is no number"),
        ("<instance scaleSet='s' port='\u00b2'/>", "is no number"),
        ("<instance scaleSet='s'><disk name='x' generation='1'/></instance>", "'x' has no source"),
        ("<instance scaleSet='s'><disk><source/></disk></instance>", "invalid literal"),
        ("<instance", "no well-formed XML"),
    ],
)
def test_facts_that_make_no_sense_are_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_claim(text)
