"""What kind of custom data a model brings."""

# The first words of cloud-init's formats, but for a script's `#!`. See "User-data formats" of its
# documentation; it may also come compressed.
_CLOUD_INIT = (
    b"#cloud-config",
    b"#cloud-boothook",
    b"#include",
    b"#part-handler",
    b"## template:",
    b"content-type: multipart/",
    b"mime-version:",
    b"\x1f\x8b",
)


def is_for_cloud_init(custom_data: bytes) -> bool:
    """Return whether only cloud-init can make sense of it, and no shell (M06)."""
    return custom_data.lstrip()[:32].lower().startswith(_CLOUD_INIT)
