"""image-publisher: one poll loop for each feed of the configuration."""

from functools import partial

from rollcall_kit.config import load_config
from rollcall_kit.database import migrations_of
from rollcall_kit.service import Service
from rollcall_kit.settings import Settings

from image_publisher.poll import poll_forever


def build(settings: Settings) -> Service:
    """Return the service. Raises ConfigError when the configuration file cannot be used."""
    config = load_config(settings.config)
    return Service(
        name="image-publisher",
        database=True,
        migrations=[migrations_of("image_publisher")],
        background=[partial(poll_forever, feed=feed) for feed in config.feeds],
    )
