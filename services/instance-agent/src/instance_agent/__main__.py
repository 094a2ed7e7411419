"""Run the agent of this host."""

from rollcall_kit.service import main

from instance_agent.app import build
from instance_agent.settings import Settings

settings = Settings()
main(build(settings), settings)
