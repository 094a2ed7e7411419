"""Run image-publisher as a process."""

from rollcall_kit.service import main

from image_publisher.app import build
from image_publisher.settings import Settings

settings = Settings()
main(build(settings), settings)
