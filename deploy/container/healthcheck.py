"""Exit 0 when the service in this container works.

http-api must answer, over https where it has a certificate; every other service must have its
connection to the broker.
"""

import os
import ssl
import sys
import urllib.request

SECONDS = 4


def api_answers(port: str) -> bool:
    """Say whether the API of this container answers."""
    if not os.environ.get("ROLLCALL_API_TLS_CERTIFICATE"):
        return fetched(f"http://127.0.0.1:{port}/healthz") != ""
    # Not verified: the certificate is made out to the name that clients use, and this asks itself.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return fetched(f"https://127.0.0.1:{port}/healthz", context) != ""


def broker_is_connected(port: str) -> bool:
    """Say whether the metrics of this container's service tell of a connection."""
    lines = fetched(f"http://127.0.0.1:{port}/metrics").splitlines()
    return any(line.startswith("rollcall_broker_connected 1") for line in lines)


def fetched(url: str, context: ssl.SSLContext | None = None) -> str:
    """Return what is at a URL. Raises URLError for any answer that is no success."""
    with urllib.request.urlopen(url, timeout=SECONDS, context=context) as answer:
        text: str = answer.read().decode()
    return text


api_port = os.environ.get("ROLLCALL_API_PORT")
if api_port:
    sys.exit(not api_answers(api_port))
sys.exit(not broker_is_connected(os.environ["ROLLCALL_METRICS_PORT"]))
