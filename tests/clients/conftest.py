"""Real Azure clients against a running embedded stack, each in an environment of its own."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import IMAGE
from rollcall_embedded.stack import Stack, StackOptions
from rollcall_testing.environments import environment

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the database server's own user may pass through, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="rollcall-clients-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A running stack with https, its feed, and accounts on it."""

    stack: Stack
    feed: Feed
    owner: dict[str, Any]
    reader: dict[str, Any]
    subscription: str

    async def drive(self, python: Path, script: str, **more: Any) -> None:
        """Run a script of a client; publish and restart what it asks for on the way.

        `more` is what it is told beside the installation. Raises AssertionError, with what it
        wrote, when it fails.
        """
        assert self.stack.certificates is not None
        known = {
            "url": self.stack.api_url,
            "ca": str(self.stack.certificates.ca),
            "subscription": self.subscription,
            "owner": self.owner,
            "reader": self.reader,
            **more,
        }
        process = await asyncio.create_subprocess_exec(
            str(python),
            *("-W", "error::DeprecationWarning:__main__", str(SCRIPTS / script)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **os.environ,
                "INSTALLATION": json.dumps(known),
                "REQUESTS_CA_BUNDLE": str(self.stack.certificates.ca),
            },
        )
        assert process.stdin is not None
        assert process.stdout is not None
        said: list[str] = []
        try:
            async for line in process.stdout:
                said.append(line.decode())
                match line.decode().split():
                    case ["publish", version]:
                        await asyncio.to_thread(self.feed.publish, version)
                        process.stdin.write(b"published\n")
                    case ["restart", service]:
                        await self.stack.restart(service)
                        process.stdin.write(b"restarted\n")
        finally:
            if not process.stdout.at_eof():  # we were cancelled
                process.kill()
            status = await process.wait()
        assert status == 0, "".join(said)
        assert said[-1].strip() == "all is well", "".join(said)


@asynccontextmanager
async def running(folder: Path, image: Mapping[str, str]) -> AsyncIterator[Installation]:
    """Give a stack whose feed offers 1.0.0, with an owner and a reader of its subscription."""
    feed = Feed(folder, image=image)
    feed.publish("1.0.0")
    options = StackOptions(
        state_dir=folder / "state", config=feed.write_config(), throwaway=True, tls=True
    )
    async with Stack(options) as stack:
        assert stack.certificates is not None
        async with httpx.AsyncClient(
            base_url=stack.api_url,
            headers={"Authorization": f"Bearer {stack.token}"},
            verify=stack.certificates.client_context(),
        ) as http:
            listed = (await http.get("/subscriptions?api-version=2022-12-01")).json()
            subscription = listed["value"][0]["subscriptionId"]
            made = [
                (
                    await http.post("/rollcall/accounts", json={"name": role, "roles": [grant]})
                ).json()
                for role in ("owner", "reader")
                for grant in ({"role": role, "scope": f"/subscriptions/{subscription}"},)
            ]
        yield Installation(
            stack=stack, feed=feed, owner=made[0], reader=made[1], subscription=subscription
        )


@pytest.fixture
def image() -> Mapping[str, str]:
    """The image that the feed offers; a test module overrides this to change it."""
    return IMAGE


@pytest.fixture
async def installation(folder: Path, image: Mapping[str, str]) -> AsyncIterator[Installation]:
    """A running stack with https."""
    async with running(folder, image) as found:
        yield found


@pytest.fixture
def python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment with the packages that the test's `requirements` name."""
    return environment(*request.param)
