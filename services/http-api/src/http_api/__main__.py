"""Run http-api as a process."""

from rollcall_kit.service import main

from http_api.app import build
from http_api.settings import Settings

settings = Settings()
main(build(settings), settings)
