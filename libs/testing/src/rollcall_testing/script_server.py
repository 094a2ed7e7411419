"""A server of the scripts that the templates' extensions fetch, which notes what was asked."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_SCRIPTS = {
    "/installserver.sh": b"echo installed >> installed && python3 workserver.py\n",
    "/workserver.py": b"print('at work')\n",
}


@dataclass(slots=True)
class ScriptServer:
    """Where it is, and the paths that it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = _SCRIPTS.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")
        self.server.asked.append(self.path)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


@contextmanager
def serving_scripts() -> Iterator[ScriptServer]:
    """Serve the seed's scripts on a port of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    known = ScriptServer(f"http://127.0.0.1:{server.server_address[1]}")
    server.asked = known.asked  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
