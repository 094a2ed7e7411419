"""Stop every instance of this host's agent: `python -m instance_agent.stop_instances`.

For shutting a whole stack down, after its agent. The journal still says that they should run, so
the next agent boots them again.
"""

import asyncio

import structlog
from rollcall_kit.logging import configure_logging

from instance_agent.app import build_driver, open_journal
from instance_agent.driver import Driver, InstanceRef
from instance_agent.failures import OperationFailed
from instance_agent.settings import Settings

log = structlog.get_logger()


async def stop_all(settings: Settings) -> int:
    """Stop all instances at once; returns how many could not be stopped."""
    driver = build_driver(settings)
    journal = open_journal(settings)
    refs = [
        InstanceRef(scale_set=record.scale_set, instance_id=record.instance_id)
        for record in journal.all()
    ]
    journal.close()
    stopped = await asyncio.gather(*(_stop(driver, ref, settings.stop_grace) for ref in refs))
    log.info("instances_stopped", count=sum(stopped))
    return len(stopped) - sum(stopped)


async def _stop(driver: Driver, ref: InstanceRef, grace: float) -> bool:
    try:
        await driver.stop(ref, grace)
    except (OSError, OperationFailed) as error:
        log.error("stop_failed", instance=ref.instance_id, error=str(error))
        return False
    return True


def main() -> int:
    """Return 0 if nothing runs any more."""
    settings = Settings()
    configure_logging("instance-agent", settings.log_level, settings.log_format)
    return 1 if asyncio.run(stop_all(settings)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
