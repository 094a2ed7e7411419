"""The `rollcall` command as operators and their scripts use it, on the embedded stack."""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet
from rollcall_cli.exits import Exit
from rollcall_embedded.stack import Stack, StackOptions
from rollcall_testing import eventually

ROLLCALL = str(Path(sys.executable).with_name("rollcall"))
GROUP = "/subscriptions/mine/resourceGroups/shop/providers"
SET = f"{GROUP}/Microsoft.Compute/virtualMachineScaleSets/web"
BALANCER = f"{GROUP}/Microsoft.Network/loadBalancers/front"
VERSION = {"api-version": "2018-10-01"}
COLOUR = re.compile(r"\x1b\[([0-9]+;)*(3[0-7]|9[0-7])m")  # bold and dim are none
PATIENCE = 120.0  # seconds for a command that waits for an upgrade, on a busy machine


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    """Have tmux and faketime."""
    subprocess.run([str(Path(__file__).with_name("install-packages"))], check=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command printed, and how it exited."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Return what it printed, as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Somebody with a shell and a configuration of their own."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment: nothing of Rollcall's but what is extra."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ROLLCALL_", "XDG_"))}
        return {
            **kept,
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "TZ": "UTC",
            "LANG": "C.UTF-8",
            **self.extra,
        }

    async def run(self, *arguments: str, text: str = "", wrapper: tuple[str, ...] = ()) -> Said:
        """Run a command."""
        process = await asyncio.create_subprocess_exec(
            *wrapper,
            ROLLCALL,
            *arguments,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(text.encode())
        assert "Traceback" not in err.decode()
        return Said(code=process.returncode or 0, out=out.decode(), err=err.decode())

    async def done(self, *arguments: str, text: str = "") -> Said:
        """Run a command that must succeed."""
        said = await self.run(*arguments, text=text)
        assert said.code == Exit.DONE, (arguments, said)
        return said

    async def refused(self, *arguments: str, code: int = Exit.FAILED, text: str = "") -> str:
        """Run a command that must fail, and return what it says."""
        said = await self.run(*arguments, text=text)
        assert said.code == code, (arguments, said)
        assert "rollcall: " in said.err
        return said.err

    async def all_done(self, *lines: str) -> list[Said]:
        """Run commands side by side that must succeed."""
        return await asyncio.gather(*(self.done(*shlex.split(line)) for line in lines))

    async def all_refused(self, *lines: str) -> list[str]:
        """Run commands side by side that must fail, and return what they say."""
        return await asyncio.gather(*(self.refused(*shlex.split(line)) for line in lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A running stack, its feed, and an operator who is not logged in."""

    stack: Stack
    feed: Feed
    folder: Path
    operator: Operator
    http: httpx.AsyncClient  # as the owner

    async def get(self, path: str) -> Any:
        """Return what the API itself says."""
        answer = await self.http.get(path)
        answer.raise_for_status()
        return answer.json()

    async def account(self, role: str, scope: str) -> tuple[str, Path]:
        """Make an account; return its id and the file with its secret."""
        roles = [{"role": role, "scope": scope}]
        answer = await self.http.post("/rollcall/accounts", json={"name": role, "roles": roles})
        answer.raise_for_status()
        made = answer.json()
        file = self.folder / f"secret-of-{role}"
        file.write_text(made["clientSecret"])
        return made["clientId"], file

    async def published(self, version: str, *, healthy: bool = True) -> None:
        """Publish a version, and wait until the installation has it."""
        await asyncio.to_thread(self.feed.publish, version, healthy=healthy)
        path = (
            "/subscriptions/mine/providers/Microsoft.Compute/locations/local/publishers/Contoso"
            "/artifacttypes/vmimage/offers/Web/skus/stable/versions"
        )

        async def known() -> bool:
            answer = await self.http.get(path)
            return answer.is_success and version in [item["name"] for item in answer.json()]

        await eventually(known, timeout=60, interval=0.1)


@asynccontextmanager
async def running(
    folder: Path, *, tls: bool = False, boot_seconds: float = 0.3
) -> AsyncIterator[Place]:
    """Give a stack whose feed has version 1.0.0."""
    feed = Feed(folder, boot_seconds=boot_seconds)
    feed.publish("1.0.0")
    options = StackOptions(
        state_dir=folder / "state", config=feed.write_config(), throwaway=True, tls=tls
    )
    async with Stack(options) as stack:
        trust = stack.certificates.client_context() if stack.certificates else True
        async with httpx.AsyncClient(
            base_url=stack.api_url,
            headers={"Authorization": f"Bearer {stack.token}"},
            params=VERSION,
            verify=trust,
            timeout=30,
        ) as http:
            yield Place(
                stack=stack,
                feed=feed,
                folder=folder,
                operator=Operator(home=folder / "home"),
                http=http,
            )


def model(*, capacity: int = 4, pause: str = "PT0S", automatic: bool = True) -> str:
    """Return a load balancer and a set, as somebody writes them; in the wrong order."""
    probe = {"protocol": "Http", "port": 80, "requestPath": "/health", "intervalInSeconds": 5}
    balancer = {
        "type": "loadBalancers",
        "name": "front",
        "location": "local",
        "sku": {"name": "Standard"},
        "properties": {
            "probes": [{"name": "health", "properties": {**probe, "numberOfProbes": 1}}]
        },
    }
    scale_set = {
        "type": "Microsoft.Compute/virtualMachineScaleSets",
        "name": "web",
        "location": "local",
        "sku": {"name": "Standard_D2s_v3", "capacity": capacity},
        "properties": {
            "upgradePolicy": {
                "mode": "Manual",
                "automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": automatic},
                "rollingUpgradePolicy": {
                    "maxBatchInstancePercent": 50,
                    "maxUnhealthyInstancePercent": 50,
                    "healthTimeout": "PT10S",
                    "pauseTimeBetweenBatches": pause,
                },
            },
            "virtualMachineProfile": {
                "storageProfile": {
                    "imageReference": {
                        "publisher": "Contoso",
                        "offer": "Web",
                        "sku": "stable",
                        "version": "latest",
                    }
                },
                "osProfile": {"computerNamePrefix": "web"},
                "networkProfile": {"healthProbe": {"id": f"{BALANCER}/probes/health"}},
            },
        },
    }
    return yaml.safe_dump_all([scale_set, balancer])


# --- every command --------------------------------------------------------------------------------


@pytest.mark.timeout(600)
async def test_operators_look_steer_and_script(folder: Path) -> None:
    async with running(folder, tls=True) as place:
        await _logs_in(place)
        await _applies(place)
        await _looks(place)
        await _slips(place)
        await _switches_servers(place)
        await _upgrades_by_hand(place)
        await _stops_halfway(place)
        await _reads_the_past(place)
        await _follows(place)


async def _logs_in(place: Place) -> None:
    operator, url = place.operator, place.stack.api_url
    certificates = place.stack.certificates
    assert certificates is not None
    token = place.stack.token
    said = await operator.refused("login", "--server", url, "--token-file", "-", text=token)
    assert f"the certificate of {url} is not trusted" in said
    assert "--ca-file" in said
    ca = ("--ca-file", str(certificates.ca))
    said = await operator.refused("login", "--server", url, *ca)
    assert "asks who you are: give --client-id" in said
    id, secret = await place.account("owner", "/")
    asked = ("login", "--server", url, *ca, "--name", "shop", "--client-id", id)
    wrong = await operator.refused(*asked, "--client-secret-file", "-", text="another")
    assert "does not let this account log in (AADSTS7000215" in wrong
    where = ("-s", "mine", "-g", "shop")
    said_well = await operator.done(*asked, *where, "--client-secret-file", str(secret))
    assert said_well.out.startswith(f"{url}: logged in with account {id}; the context is shop")
    kept = operator.home / "config" / "rollcall" / "contexts.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    context = json.loads(kept.read_text())["contexts"]["shop"]
    assert context["clientSecret"] == secret.read_text()
    assert context["token"].count(".") == 2
    # A token that was refused, and one that has ended, are renewed without a word.
    document = json.loads(kept.read_text())
    for change in ({"token": "a.b.c"}, {"expires": 1.0}):
        document["contexts"]["shop"] |= change
        kept.write_text(json.dumps(document))
        assert (await operator.done("sets", "-o", "json")).document == {"value": []}
        assert json.loads(kept.read_text())["contexts"]["shop"]["expires"] > 1e9


async def _applies(place: Place) -> None:
    operator = place.operator
    file = place.folder / "shop.yaml"
    file.write_text(model())
    would = await operator.done("apply", "-f", str(file), "--dry-run")
    assert would.out.splitlines() == [
        "loadBalancers front: would be created",
        "virtualMachineScaleSets web: would be created",
    ]
    made = await operator.done("apply", "-f", str(file), "--wait")
    assert made.out.splitlines()[:2] == [
        "loadBalancers front: created",
        "virtualMachineScaleSets web: created",
    ]
    assert made.out.splitlines()[-1] == "web: as its model says"
    again = await operator.done("apply", "-f", str(file), "-o", "json")
    assert [item["name"] for item in again.document["value"]] == ["front", "web"]
    tagged = model().replace("name: front\n", "name: front\ntags: {team: web}\n")
    changed = await operator.done("apply", "-f", "-", text=tagged)
    assert changed.out.splitlines() == [
        "loadBalancers front: changed",
        '  + tags.team: "web"',
        "virtualMachineScaleSets web: unchanged",
    ]
    # What is shown can be applied: nothing changes.
    shown = await operator.done("show", "web", "-o", "yaml")
    unchanged = await operator.done("apply", "-f", "-", text=shown.out)
    assert unchanged.out == "virtualMachineScaleSets web: unchanged\n"
    broken = model(capacity=-1).replace("PT10S", "soon")
    said = await operator.refused("apply", "-f", "-", text=broken)
    assert "The request has 2 errors" in said
    assert "sku.capacity must be a whole number" in said


async def _looks(place: Place) -> None:
    operator = place.operator

    async def healthy() -> bool:
        found = (await operator.done("instances", "web", "-o", "json")).document["value"]
        return [item["properties"]["rollcall"]["health"] for item in found] == ["Healthy"] * 4

    await eventually(healthy, timeout=60)
    sets, shown, as_yaml, listed, page, table, of_set, named, once, well = await operator.all_done(
        "sets -o json",
        "show web -o json",
        f"show {SET} -o yaml",
        "sets",
        "show web",
        "instances web",
        "images --set web -o json",
        "images contoso:web:stable:1.0.0",
        "watch web --once",
        "doctor",
    )
    assert sets.document == await place.get(f"{GROUP}/Microsoft.Compute/virtualMachineScaleSets")
    assert shown.document == await place.get(SET)
    assert yaml.safe_load(as_yaml.out) == shown.document
    row = listed.out.splitlines()[1].split()
    assert row[:5] == ["web", "shop", "4", "Contoso:Web:stable:latest", "on"]
    assert "4 succeeded, 4 running, 4 healthy" in page.out
    assert "50 % at a time" in page.out
    rows = [row.split() for row in table.out.splitlines()[1:]]
    assert [row[:2] for row in rows] == [[str(i), f"web{i}"] for i in range(4)]
    assert all(row[3:7] == ["1.0.0", "ready", "Healthy", "running"] for row in rows)
    assert [item["name"] for item in of_set.document] == ["1.0.0"]
    assert "Contoso    Web    stable  1.0.0" in named.out
    assert "web: 4 instances; no upgrade runs" in once.out
    assert "tls      the certificate is valid until" in well.out
    assert "\x1b" not in listed.out + page.out + table.out + well.out  # nobody looks: no colours


async def _slips(place: Place) -> None:
    operator = place.operator
    secure = place.stack.api_url
    wrong = Operator(home=operator.home, extra={"ROLLCALL_API_TOKEN": "wrong"})
    unknown, image, start, cancel, away, plain, whose = await operator.all_refused(
        "show wbe",
        "images Contosso",
        "start web",
        "cancel web",
        f"sets --url http://127.0.0.1:{free_port()}",
        f"sets --url {secure.replace('https', 'http')}",
        "events",
    )
    token = await wrong.refused("sets")
    never = await operator.done("history", "web")
    assert "Did you mean Contoso? There are: Contoso" in image
    assert unknown == (
        "rollcall: there is no scale set wbe in the subscription mine in the resource group shop. "
        "Did you mean web? There are: web\n"
    )
    assert "runs the latest version 1.0.0" in start
    assert "no ongoing Rolling Upgrade to cancel" in cancel
    assert "cannot be reached" in away
    assert "is --url right?" in away
    assert f"it may speak https; try --url {secure}" in plain
    assert "does not take this token (InvalidAuthenticationToken" in token
    assert f"rollcall login --server {secure}" in token
    assert "whose events?" in whose
    assert "never had an upgrade" in never.out


async def _switches_servers(place: Place) -> None:
    operator, stack = place.operator, place.stack
    assert stack.certificates is not None
    ca = ("--ca-file", str(stack.certificates.ca))
    id, secret = await place.account("reader", SET)
    reading = ("--name", "reading", "--client-id", id, "--client-secret-file", str(secret))
    await operator.done(
        "login", "--server", stack.api_url, *ca, *reading, "-s", "mine", "-g", "shop"
    )
    assert "web" in (await operator.done("show", "web")).out
    said = await operator.refused("disable", "web")
    assert "AuthorizationFailed" in said
    assert "log in with another account (`rollcall login`)" in said
    listed = await operator.done("context", "list", "-o", "json")
    assert [(c["name"], c["current"]) for c in listed.document["value"]] == [
        ("shop", False), ("reading", True),
    ]  # fmt: skip  # a list
    assert secret.read_text() not in listed.out
    await operator.done("disable", "web", "--context", "shop")
    in_shop = Operator(home=operator.home, extra={"ROLLCALL_CONTEXT": "shop"})
    await in_shop.done("enable", "web")
    said = await operator.refused("context", "use", "shpo")
    assert "Did you mean shop? There are: shop, reading" in said
    await operator.done("context", "use", "shop")
    await operator.done("logout", "reading")
    assert "asks for a token" in await operator.refused("show", "web", "--context", "reading")
    await operator.done("context", "delete", "reading")
    assert "reading" not in (await operator.done("context", "list")).out
    completing = {"_ROLLCALL_COMPLETE": "complete_bash", "COMP_WORDS": "rollcall show w"}
    shell = Operator(home=operator.home, extra={**completing, "COMP_CWORD": "2"})
    assert (await shell.run()).out.split() == ["web"]


async def _upgrades_by_hand(place: Place) -> None:
    operator = place.operator
    off = await operator.done("disable", "web", "-o", "json")
    policy = off.document["properties"]["upgradePolicy"]["automaticOSUpgradePolicy"]
    assert policy["enableAutomaticOSUpgrade"] is False
    await place.published("2.0.0")
    done = await operator.done("start", "web", "--wait", "-o", "json")
    assert done.document["status"] == "Completed"
    assert done.document["startedBy"] == "User"
    assert done.document == (await place.get(f"{SET}/rollcall/upgrades"))["value"][0]
    assert "upgrade to 2.0.0, started by User, 4 instances" in done.err  # as it went
    assert "batch 2 done: 2 healthy, 0 failed" in done.err
    await place.published("3.0.0", healthy=False)
    bad = await operator.run("enable", "web", "--wait", "--timeout", "90s")
    assert bad.code == Exit.FAULTED, bad
    assert bad.out.startswith("The upgrade to 3.0.0 is Faulted: 0 of 4 instances in 1 batch.")
    assert (await operator.run("watch", "web", "--once")).code == Exit.FAULTED
    held = await operator.refused("enable", "web", "--wait", code=Exit.NOT_DONE)
    assert "no upgrade starts: Version 3.0.0 did not succeed in this set" in held


async def _stops_halfway(place: Place) -> None:
    operator = place.operator
    slow = await operator.done("apply", "-f", "-", text=model(pause="PT1H", automatic=False))
    assert (
        '~ properties.upgradePolicy.rollingUpgradePolicy.pauseTimeBetweenBatches: "PT0S" -> "PT1H"'
        in slow.out
    )
    await place.published("4.0.0")
    begun = await operator.done("start", "web", "-o", "json")
    assert begun.document["status"] == "InProgress"

    async def runs() -> bool:
        return (await operator.run("watch", "web", "--once")).out.count("upgrade to 4.0.0") == 1

    await eventually(runs, timeout=30)
    watched = await operator.run("watch", "web", "--timeout", "2s")
    assert watched.code == Exit.STILL_RUNNING
    assert "it still runs" in watched.err
    await operator.done("pause", "web", "--reason", "lunch")
    paused = (await operator.done("resume", "web", "-o", "json")).document
    assert paused["properties"]["runningStatus"]["code"] == "RollingForward"
    stopped = await operator.done("cancel", "web", "--wait", "--reason", "enough")
    assert "The upgrade to 4.0.0 is Cancelled: 2 of 4 instances in 1 batch." in stopped.out
    assert (await operator.run("watch", "web", "--once")).code == Exit.CANCELLED
    await operator.done("apply", "-f", "-", text=model(automatic=False))
    back = await operator.done("rollback", "web", "--wait")
    assert "The upgrade to 2.0.0 is Completed: 2 of 2 instances" in back.out


async def _reads_the_past(place: Place) -> None:
    operator = place.operator
    records = (await place.get(f"{SET}/rollcall/upgrades"))["value"]
    bad = records[2]["id"]
    query: dict[str, str | int] = {"scaleSet": SET, "limit": 1000}
    log = (await place.http.get("/rollcall/events", params=query)).json()
    azure, every, told, one, latest, verified, of_one, last, images = await operator.all_done(
        "history web -o json",
        "history web --all -o json",
        "history web",
        f"history web {bad}",
        "history web latest -o json",
        "events web --verify --type batch.started -o json",
        f"events web --upgrade {bad} --instance 0 -o json",
        "events web -n 5 -o json",
        "events --images",
    )
    assert azure.document == await place.get(f"{SET}/osUpgradeHistory")
    codes = [item["properties"]["runningStatus"]["code"] for item in azure.document["value"]]
    assert codes == ["Completed", "Cancelled", "Faulted", "Completed"]
    assert every.document["value"] == records
    versions = [item["targetImageReference"]["version"] for item in records]
    assert versions == ["2.0.0", "4.0.0", "3.0.0", "2.0.0"]
    assert "MaxUnhealthyUpgradedInstancePercentExceededInRollingUpgrade" in told.out
    assert "restored" in one.out
    assert latest.document == await place.get(f"{SET}/rollcall/upgrades/{records[0]['id']}")
    assert "nothing is missing, nothing was changed" in verified.err
    assert {item["type"] for item in verified.document["value"]} == {"batch.started.v1"}
    assert len(verified.document["value"]) == 5  # 2 of 2.0.0, one each of 3.0.0, 4.0.0 and back
    assert {item["correlationid"] for item in of_one.document["value"]} == {bad}
    sequences = [int(item["sequence"]) for item in last.document["value"]]
    assert sequences == list(range(sequences[0], sequences[0] + 5))
    assert sequences[-1] >= int(log["value"][-1]["sequence"])
    assert "Contoso:Web:stable:3.0.0" in images.out


async def _follows(place: Place) -> None:
    """Follow the log as a program does, until Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *(
            ROLLCALL,
            "events",
            "web",
            "--follow",
            "-n",
            "0",
            "-t",
            "scale_set.changed",
            "-o",
            "json",
        ),
        env=place.operator.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        changed = asyncio.create_task(process.stdout.readline())
        # It may not listen yet when the first change is made: each goes to and fro.
        for automatic in (True, False) * 10:
            await place.operator.done("enable" if automatic else "disable", "web")
            done, _ = await asyncio.wait([changed], timeout=1)
            if done:
                break
        async with asyncio.timeout(30):
            entry = json.loads(await changed)
        assert entry["type"] == "scale_set.changed.v1"
        assert entry["data"]["scale_set"] == SET
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await process.wait() == Exit.INTERRUPTED
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# --- watch, in a real terminal --------------------------------------------------------------------


class Terminal:
    """A terminal of tmux, on a server of its own."""

    def __init__(self, socket: Path, operator: Operator, *, width: int, height: int) -> None:
        self._tmux = ("tmux", "-f", "/dev/null", "-u", "-S", str(socket))
        self._environment = operator.environment | {"TERM": "xterm-256color"}
        self.width = width
        self._call(
            *("new-session", "-d", "-x", str(width), "-y", str(height)),
            *("bash", "--norc", "--noprofile"),
        )

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout

    def type(self, line: str) -> None:
        """Type a line."""
        self._call("send-keys", "-l", line)
        self._call("send-keys", "Enter")

    def seen(self, *, colours: bool = False) -> list[str]:
        """Return the lines that are on the screen, without empty ones at the end."""
        text = self._call("capture-pane", "-p", *(("-e",) if colours else ()))
        return text.rstrip("\n").split("\n")

    def close(self) -> None:
        """End the server and all that runs in it."""
        self._call("kill-server")


@pytest.fixture
def terminals(folder: Path) -> Iterator[list[Terminal]]:
    """A place for terminals, which are closed at the end."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


NAMES = [f"web{number}" for number in range(10)]


def check_grid(seen: list[str], width: int, columns: int) -> None:
    """Check a capture while an upgrade runs: whole, in its places, and nothing wrapped."""
    text = "\n".join(seen)
    assert all(len(line) <= width for line in seen), text
    title, bar, batch = seen[:3]
    assert title.startswith("web: upgrade to 2.0.0 RollingForward, by Platform"), text
    assert len(title) == width, text  # how long it takes stands at the right edge
    assert bar.endswith((" wait",)), text
    assert " of 10 done, 0 failed, " in bar, text
    assert batch.startswith("batch ") or batch == "no batch yet", text
    assert seen[5] == "", text  # two lines for what is waited for, then the grid
    rows = -(-10 // columns)
    grid, legend = seen[6 : 6 + rows], seen[7 + rows]
    assert legend == "● done   ○ waits   ◌ at work   ✗ failed", text
    assert len(seen) == 8 + rows, text
    cells = [word for line in grid for word in line.split("  ") if word.strip()]
    assert [cell.split()[1] for cell in cells] == NAMES, text
    assert {len(line.split("  ")) >= 1 for line in grid} == {True}
    starts = [line.index(name) for line in grid for name in NAMES if name in line]
    assert len(set(starts)) == columns, text  # they stand below each other
    for cell in cells:
        mark, _, version, *word = cell.split()
        assert mark in "●○◌", text
        assert version in ("1.0.0", "2.0.0"), text
        assert " ".join(word) in ("healthy", "booting", "starting", "upgrading"), text


@pytest.mark.timeout(600)
async def test_watch_shows_an_upgrade_in_terminals_of_80_and_160_columns(
    folder: Path, terminals: list[Terminal]
) -> None:
    async with running(folder, boot_seconds=1.5) as place:
        fleet = DemoFleet(place.stack.api_url, place.stack.token)
        try:
            await fleet.create(10, health_timeout="PT60S")

            async def ready() -> bool:
                return (await fleet.view()).is_healthy_at("1.0.0", 10)

            await eventually(ready, timeout=90, interval=0.1)
        finally:
            await fleet.close()
        login = {"ROLLCALL_URL": place.stack.api_url, "ROLLCALL_API_TOKEN": place.stack.token}
        operator = Operator(home=folder / "home", extra=login)
        plain = Operator(home=folder / "home", extra={**login, "NO_COLOR": "1"})
        narrow = Terminal(folder / "narrow", plain, width=80, height=24)
        terminals.append(narrow)
        wide = Terminal(folder / "wide", operator, width=160, height=24)
        terminals.append(wide)
        command = f"{shlex.quote(ROLLCALL)} watch web; echo code $?"
        for terminal in (narrow, wide):
            terminal.type(command)

        async def waits() -> bool:
            # No upgrade yet: the whole set is there, and healthy.
            return all("web: no upgrade yet" in t.seen()[0] for t in (narrow, wide))

        await eventually(waits, timeout=60)
        await asyncio.to_thread(place.feed.publish, "2.0.0")
        kept = await _watched(narrow, wide)
        assert len(kept) >= 3, kept  # different batches were seen
        for terminal in (narrow, wide):
            _check_end(terminal)
        assert not COLOUR.search("\n".join(narrow.seen(colours=True)))  # NO_COLOR
        assert COLOUR.search("\n".join(wide.seen(colours=True)))
        lines = await operator.done("watch", "web", "--once")
        assert "no upgrade runs" in lines.out


async def _watched(narrow: Terminal, wide: Terminal) -> set[str]:
    """Look at both while the upgrade runs; return the batches that were seen at work."""
    batches: set[str] = set()
    busy = 0

    async def ended() -> bool:
        nonlocal busy
        for terminal, columns in ((narrow, 3), (wide, 6)):
            seen = terminal.seen()
            if "RollingForward" not in seen[0]:
                continue
            check_grid(seen, terminal.width, columns)
            if ", since " in seen[2]:
                batches.add(seen[2].split(":")[0])
            busy += any("◌" in line for line in seen[6:-1])
        return all(any(line.startswith("code ") for line in t.seen()) for t in (narrow, wide))

    await eventually(ended, timeout=120, interval=0.3)
    assert busy > 2
    return batches


def _check_end(terminal: Terminal) -> None:
    """The last picture stays below the prompt, with the sentence and the code."""
    seen = terminal.seen()
    text = "\n".join(seen)
    start = next(i for i, line in enumerate(seen) if line.startswith("web: upgrade to 2.0.0 Comp"))
    assert "10 of 10 done, 0 failed, 0 at work, 0 wait" in seen[start + 1], text
    assert text.count("● web") == 10, text
    assert "The upgrade to 2.0.0 is Completed: 10 of 10 instances in 5 batches." in text
    assert "code 0" in seen, text


# --- doctor ---------------------------------------------------------------------------------------


async def _faults(operator: Operator, *arguments: str, **more: Any) -> dict[str, str]:
    """Return what doctor finds wrong, by check; it must find something."""
    said = await operator.run("doctor", "-o", "json", *arguments, **more)
    findings = said.document["findings"]
    wrong = {f["check"]: f["message"] for f in findings if f["state"] == "fault"}
    assert said.code == (Exit.NO if wrong else Exit.DONE), said
    assert said.document["well"] is not bool(wrong)
    assert all(f["fix"] for f in findings if f["state"] == "fault")
    return wrong


@pytest.mark.timeout(600)
async def test_doctor_names_what_is_broken(folder: Path) -> None:
    async with running(folder) as place:
        stack, home = place.stack, folder / "home"
        here = {"ROLLCALL_URL": stack.api_url, "ROLLCALL_API_TOKEN": stack.token}
        operator = Operator(home=home, extra=here)
        folder_of_up = ("--state-dir", str(stack.folder))

        async def well() -> bool:
            return await _faults(operator, *folder_of_up) == {}

        await eventually(well, timeout=60)
        said = await operator.done("doctor", *folder_of_up)
        assert "All is well." in said.out
        assert "5 queues are read" in said.out

        await stack.kill("instance-agent-host-2", restart=False)  # is silent in half a minute

        # Wrong credentials, nobody there, and a clock that is wrong.
        wrong = await _faults(Operator(home=home, extra={**here, "ROLLCALL_API_TOKEN": "x"}))
        assert list(wrong) == ["login"]
        assert "does not take this token" in wrong["login"]
        away = {**here, "ROLLCALL_URL": f"http://127.0.0.1:{free_port()}"}
        wrong = await _faults(Operator(home=home, extra=away))
        assert "cannot be reached" in wrong["server"]
        wrong = await _faults(operator, wrapper=("faketime", "-f", "+10m"))
        assert wrong["clock"].startswith("this machine's clock is ")
        assert wrong["clock"].endswith(" ahead of the server's")

        # A feed that somebody else signed.
        other = Feed(folder / "other")
        other.folder.parent.mkdir()
        other.publish("1.0.0")
        for name in ("index.sjson", "images.sjson"):
            signed = other.folder / "streams" / "v1" / name
            (place.feed.folder / "streams" / "v1" / name).write_bytes(signed.read_bytes())

        async def doubted() -> dict[str, str] | None:
            found = await _faults(operator)
            return found if "feeds" in found and "agents" in found else None

        found = await eventually(doubted, timeout=90, interval=1)
        assert found is not None
        assert found["feeds"].startswith("the feed demo (file://")
        assert "FeedSignatureInvalid" in found["feeds"]
        assert found["agents"].startswith("the agent of host-2 is silent for ")
        found = await _faults(operator, *folder_of_up)
        assert "nobody reads the queue instance-agent.host-2" in found["services"]

        # The broker, then the database; with the API, and past it.
        await stack.kill("rabbitmq", restart=False)

        async def without_broker() -> dict[str, str] | None:
            found = await _faults(operator)
            return found if "broker" in found else None

        found = await eventually(without_broker, timeout=30)
        assert found is not None
        assert found["broker"].startswith("http-api does not reach RabbitMQ")
        assert "database" not in found
        await stack.kill("postgres", restart=False)
        found = await _faults(operator, *folder_of_up)
        assert str(stack.folder) in found["broker"]
        assert str(stack.folder) in found["database"]
        given = {"ROLLCALL_DATABASE_URL": stack.database_url, "ROLLCALL_AMQP_URL": stack.amqp_url}
        found = await _faults(Operator(home=home, extra={**away, **given}))
        assert set(found) == {"server", "database", "broker"}
        assert "(ROLLCALL_DATABASE_URL): " in found["database"]
        assert stack.database_url.split("@")[0].rpartition(":")[2] not in found["database"]
