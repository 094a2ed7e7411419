"""Build a sample image: `uv run python examples/images/build_image.py v2.tar.gz --version 2.0.0`.

An image for the process driver is any tar.gz with an executable file `init` at its top; see
docs/drivers.md for what `init` finds in its environment.
"""

import argparse
import hashlib

from rollcall_cli.sample_image import build_image

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build a sample image for the process driver.")
    parser.add_argument("path", help="the file to write, such as v2.tar.gz")
    parser.add_argument("--version", required=True, help="such as 2.0.0")
    parser.add_argument("--broken", action="store_true", help="it never becomes healthy")
    parser.add_argument("--boot-seconds", type=float, default=0.0, help="before its first answer")
    arguments = parser.parse_args()
    image = build_image(
        arguments.path,
        arguments.version,
        healthy=not arguments.broken,
        boot_seconds=arguments.boot_seconds,
    )
    content = image.read_bytes()
    print(f"{image}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
