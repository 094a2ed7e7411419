"""Which custom data is a script."""

import gzip

import pytest
from instance_agent.domain.custom_data import is_for_cloud_init


@pytest.mark.parametrize(
    "text",
    [
        b"#cloud-config\npackages: [nginx]\n",
        b"\n#cloud-config\n",
        b"#cloud-config-archive\n- type: text/plain\n",
        b"#cloud-boothook\n#!/bin/sh\n",
        b"#include\nhttps://example.org/more\n",
        b"#part-handler\n",
        b"## template: jinja\n#cloud-config\n",
        b"Content-Type: multipart/mixed; boundary=x\n",
        b"MIME-Version: 1.0\n",
        gzip.compress(b"#cloud-config\n", mtime=0),
    ],
)
def test_these_are_cloud_inits(text: bytes) -> None:
    assert is_for_cloud_init(text)


@pytest.mark.parametrize(
    "text", [b"", b"#!/bin/sh\n#cloud-config\n", b"echo yes\n", b"# why\nls\n"]
)
def test_these_are_a_shells(text: bytes) -> None:
    assert not is_for_cloud_init(text)
