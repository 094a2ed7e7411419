"""Run the orchestrator as a process."""

from rollcall_kit.service import main
from rollcall_kit.settings import Settings

from orchestrator.app import build

main(build(), Settings())
