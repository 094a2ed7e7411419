"""Exit 0 when the service in this container has its connection to the broker."""

import os
import sys
import urllib.request

URL = f"http://127.0.0.1:{os.environ['ROLLCALL_METRICS_PORT']}/metrics"

with urllib.request.urlopen(URL, timeout=4) as answer:
    lines = answer.read().decode().splitlines()
sys.exit(not any(line.startswith("rollcall_broker_connected 1") for line in lines))
