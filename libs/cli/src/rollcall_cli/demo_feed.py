"""A signed image feed of sample images, made from scratch."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from rollcall_cli.demo_fleet import IMAGE
from rollcall_cli.feeds.folder import add_image, init_feed
from rollcall_cli.feeds.signing import make_signing_key, sign_feed
from rollcall_cli.sample_image import build_image


class Feed:
    """A signed feed of real image files, in a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        image: Mapping[str, str] = IMAGE,
        boot_seconds: float = 0.0,
        boot_spread: float = 0.0,
    ) -> None:
        """Take where it is kept, whose image it offers, and how long the application boots."""
        self.image = image
        self._boot_seconds = boot_seconds
        self._boot_spread = boot_spread
        self.folder = folder / "feed"
        self._built = folder / "built"
        self.keyring = folder / "feed-key.gpg"
        self._gnupghome = folder / "gnupg"
        self._config = folder / "rollcall.yaml"
        self._key = ""

    def publish(self, version: str, *, healthy: bool = True) -> None:
        """Build an image, add it to the feed, and sign the feed."""
        self.begin()
        file = build_image(
            self._built / f"web-{version}.tar.gz",
            version,
            healthy=healthy,
            boot_seconds=self._boot_seconds,
            boot_spread=self._boot_spread,
        )
        self.add(version, file)
        self.sign()

    def begin(self) -> None:
        """Make the feed's key and its folder, unless they are there."""
        if not self._key:
            self._key = make_signing_key(self._gnupghome, "Rollcall demo")
            init_feed(self.folder)

    def add(self, version: str, file: Path) -> None:
        """Add an image file, which readers do not see until the feed is signed."""
        add_image(
            self.folder,
            file,
            publisher=self.image["publisher"],
            offer=self.image["offer"],
            sku=self.image["sku"],
            version=version,
        )

    def sign(self) -> None:
        """Sign the feed's documents as they are now, with its own key."""
        sign_feed(self.folder, key=self._key, gnupghome=self._gnupghome, keyring_out=self.keyring)

    def section(self, name: str, **settings: object) -> dict[str, object]:
        """Return the feed's section of the configuration file."""
        return {
            "name": name,
            "url": self.folder.as_uri(),
            "keyring": str(self.keyring),
            "interval": 0.5,
            "products": [{"match": "*", **self.image}],
            **settings,
        }

    def write_config(self) -> Path:
        """Write a configuration file that names this feed, and return it."""
        config = {"feeds": [self.section("demo")], "catalogue": [dict(self.image)]}
        self._config.write_text(yaml.safe_dump(config))
        return self._config
