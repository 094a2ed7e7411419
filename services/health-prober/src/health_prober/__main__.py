"""Run the prober: `python -m health_prober`."""

from rollcall_kit.service import main

from health_prober.app import build
from health_prober.settings import HealthProberSettings

if __name__ == "__main__":
    settings = HealthProberSettings()
    main(build(settings), settings)
