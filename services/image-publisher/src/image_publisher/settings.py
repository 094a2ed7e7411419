"""Settings: those that all services share; the feeds are in the configuration file."""

from rollcall_kit.settings import Settings as KitSettings


class Settings(KitSettings):
    """image-publisher reads ROLLCALL_DATABASE_URL, ROLLCALL_AMQP_URL and ROLLCALL_CONFIG."""
