"""A web server of a folder, for feeds and images that are read over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web


class Mirror:
    """Serves the files under `root` at `url`; those in `cut` end in the middle of the transfer."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.cut: set[str] = set()  # paths of the address
        self.url = ""

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        content = (self._root / request.path.lstrip("/")).read_bytes()
        if request.path not in self.cut:
            return web.Response(body=content)
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        if request.transport is not None:
            request.transport.close()
        return response

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve meanwhile, on a free port of this machine."""
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            await runner.cleanup()
