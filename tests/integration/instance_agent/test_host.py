"""One host's work with real processes, files and an HTTP server; only the broker is left out."""

import asyncio
import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from instance_agent.app import build_host
from instance_agent.domain.record import Disk, Operation, Order
from instance_agent.driver import Endpoint, InstanceRef
from instance_agent.drivers import procfs
from instance_agent.failures import OperationFailed
from instance_agent.handlers import fetch, handle
from instance_agent.host import Host, Job, ref_of
from instance_agent.settings import Settings
from instance_agent.stop_instances import stop_all
from rollcall_cli.sample_image import build_image
from rollcall_contracts.events import (
    Event,
    ImageFetchFailed,
    ImageFetchRequested,
    InstanceCreated,
    InstanceDeleted,
    InstanceFailed,
    InstanceOrder,
    InstancePowerChanged,
    InstancePowered,
    InstanceRestored,
    InstancesCreateRequested,
    InstanceUpgraded,
)
from rollcall_contracts.model import Extension, FailureCode, Image, Power, Provisioning
from rollcall_kit.secrets import new_key, seal
from rollcall_testing import eventually
from rollcall_testing.instances import HOST

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
REF = InstanceRef(scale_set=SET, instance_id="vm_0")
KEY = new_key()


class Rig:
    """A host under test, with what it reported."""

    def __init__(self, folder: Path, **more: object) -> None:
        values = {
            "host": HOST,
            "state_dir": folder / "agent",
            "stop_grace": 2,
            "secrets_key": KEY,
            "download_timeout": 5,
        }
        self.folder = folder
        self.settings = Settings.model_validate({**values, **more})
        self.host: Host = build_host(self.settings)
        self.reports: list[Event] = []

    async def report(self, event: Event) -> None:
        self.reports.append(event)

    def image(self, version: str, *, init: str | None = None, **how: bool | float) -> Image:
        path = build_image(self.folder / f"{version}.tar.gz", version, **how)  # type: ignore[arg-type]  # passed on as given
        if init is not None:
            _with_init(path, init)
        return describe(path, version)

    async def ask(
        self,
        operation: Operation,
        attempt: int,
        image: Image | None = None,
        provisioning: Provisioning | None = None,
        instance: str = "vm_0",
    ) -> Event:
        """Give an order, and return the last thing reported."""
        provisioning = provisioning or Provisioning(generation=attempt)
        order = Order(
            scale_set=SET,
            instance_id=instance,
            attempt=attempt,
            operation=operation,
            version=image.version if image else "",
            generation=provisioning.generation,
        )
        await self.host.carry_out(
            Job(order=order, image=image, provisioning=provisioning), self.report
        )
        return self.reports[-1]

    async def commit(self, attempt: int) -> None:
        order = Order(
            scale_set=SET, instance_id="vm_0", attempt=attempt, operation=Operation.UPGRADE
        )
        await self.host.commit(order)

    @property
    def top(self) -> Path:
        """The folder of the only instance."""
        (folder,) = (self.settings.state_dir / "instances").iterdir()
        return folder

    def boots(self) -> list[str]:
        """Return what the application has written by now; it does so a moment after its start."""
        file = self.top / "data" / "0" / "boots"
        return file.read_text().split() if file.exists() else []

    def disks(self) -> list[str]:
        return sorted(disk.name for disk in (self.top / "disks").iterdir())

    def pid(self) -> int:
        return int(json.loads((self.top / "process.json").read_text())["pid"])

    def swaps(self) -> int:
        record = self.host.journal.get(SET, "vm_0")
        assert record is not None
        return record.swaps

    async def close(self) -> None:
        """End the agent's part; the instances go on."""
        await self.host.power.close()
        self.host.journal.close()


def _with_init(path: Path, init: str) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = tarfile.TarInfo("init")
        member.size, member.mode = len(init), 0o755
        tar.addfile(member, io.BytesIO(init.encode()))
    path.write_bytes(gzip.compress(raw.getvalue()))


def describe(path: Path, version: str) -> Image:
    content = path.read_bytes()
    return Image(
        publisher="P",
        offer="O",
        sku="S",
        version=version,
        url=f"file://{path}",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )


@pytest.fixture
async def make_rig(tmp_path: Path) -> AsyncIterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**more: object) -> Rig:
        rigs.append(Rig(tmp_path, **more))
        return rigs[-1]

    yield make
    for rig in rigs:
        await rig.close()
    if rigs:
        assert await stop_all(rigs[0].settings.model_copy(update={"stop_grace": 0.2})) == 0


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


async def get(event: Event, path: str) -> tuple[int, str]:
    assert isinstance(event, InstanceCreated | InstanceUpgraded | InstanceRestored)
    url = f"http://{event.address}:{event.port}{path}"
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            try:
                async with session.get(url) as response:
                    return response.status, (await response.text()).strip()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.02)
    raise AssertionError(f"{url} never answered")


async def test_an_instance_lives_its_whole_life(rig: Rig) -> None:
    v1, v2 = rig.image("1.0.0"), rig.image("2.0.0")
    created = await rig.ask(Operation.CREATE, 1, v1)
    assert isinstance(created, InstanceCreated)
    assert (created.version, created.generation, created.attempt) == ("1.0.0", 1, 1)
    assert await get(created, "/version") == (200, "1.0.0")
    assert await get(created, "/health") == (200, '{"ApplicationHealthState": "Healthy"}')
    (rig.top / "data" / "0" / "kept").write_text("content")

    upgraded = await rig.ask(Operation.UPGRADE, 2, v2)
    assert isinstance(upgraded, InstanceUpgraded)
    assert (upgraded.address, upgraded.port) == (created.address, created.port)  # its identity
    assert await get(upgraded, "/version") == (200, "2.0.0")
    assert rig.disks() == ["000001-1.0.0", "000002-2.0.0"]

    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored)
    assert (restored.version, restored.generation) == ("1.0.0", 1)
    assert await get(restored, "/version") == (200, "1.0.0")
    assert rig.disks() == ["000001-1.0.0"]

    await rig.ask(Operation.UPGRADE, 4, v2)
    await rig.commit(4)
    assert rig.disks() == ["000004-2.0.0"]
    refused = await rig.ask(Operation.RESTORE, 5)
    assert isinstance(refused, InstanceFailed)
    assert refused.error.code == FailureCode.DRIVER
    assert "no previous OS disk" in refused.error.message

    await eventually(lambda: rig.boots() == ["1.0.0", "2.0.0", "1.0.0", "2.0.0"])
    assert (rig.top / "data" / "0" / "kept").read_text() == "content"
    top = rig.top
    deleted = await rig.ask(Operation.DELETE, 6)
    assert isinstance(deleted, InstanceDeleted)
    assert not top.exists()
    assert isinstance(await rig.ask(Operation.DELETE, 6), InstanceDeleted)
    assert isinstance(await rig.ask(Operation.CREATE, 7, v1), InstanceCreated)  # asked for anew


async def test_asked_twice_it_answers_twice_and_acts_once(rig: Rig) -> None:
    v1, v2 = rig.image("1.0.0"), rig.image("2.0.0")
    await rig.ask(Operation.CREATE, 1, v1)
    first = await rig.ask(Operation.UPGRADE, 2, v2)
    pid = rig.pid()
    again = await asyncio.gather(*(rig.ask(Operation.UPGRADE, 2, v2) for _ in range(3)))
    assert again == [first] * 3
    assert (rig.pid(), rig.swaps()) == (pid, 2)
    count = len(rig.reports)
    await rig.ask(Operation.UPGRADE, 1, v1)
    assert len(rig.reports) == count  # an older attempt: nothing is done, nothing is said


async def test_a_redelivery_beside_the_first_handling_acts_once(rig: Rig) -> None:
    v1, v2 = rig.image("1.0.0"), rig.image("2.0.0")
    await rig.ask(Operation.CREATE, 1, v1)
    await asyncio.gather(*(rig.ask(Operation.UPGRADE, 2, v2) for _ in range(3)))
    assert rig.swaps() == 2
    assert rig.reports[1:] == [rig.reports[1]] * 3


async def test_a_restore_tells_the_end_of_the_console_of_the_boot_that_it_ends(rig: Rig) -> None:
    """A set without scripts fails by its health alone, and nobody else saw what the boot said."""
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    init = f"#!/bin/sh\necho {'x' * 5000}\necho no database here\nexec sleep 1000\n"
    await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0", init=init))
    log = rig.top / "logs" / "boot-000002.log"
    await eventually(lambda: "no database here" in log.read_text())
    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored)
    assert restored.reason.startswith("its console ended with: ")
    assert restored.reason.endswith("no database here")
    assert len(restored.reason) < 5000
    again = await rig.ask(Operation.RESTORE, 4)  # nothing failed since
    assert isinstance(again, InstanceRestored)
    assert again.reason == ""


async def test_a_failed_preparation_leaves_the_old_instance_running(rig: Rig) -> None:
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    pid = rig.pid()
    wrong = rig.image("2.0.0").model_copy(update={"sha256": "0" * 64})
    failed = await rig.ask(Operation.UPGRADE, 2, wrong)
    assert isinstance(failed, InstanceFailed)
    assert (failed.error.code, failed.version) == (FailureCode.IMAGE_VERIFICATION, "1.0.0")
    assert rig.pid() == pid
    assert await get(created, "/version") == (200, "1.0.0")
    restored = await rig.ask(Operation.RESTORE, 3)  # it is in place: never swapped
    assert isinstance(restored, InstanceRestored)
    assert restored.version == "1.0.0"


async def test_an_init_that_ends_at_once_is_a_failed_start(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(start_settle=1)
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0", init="#!/bin/sh\nexec sleep 1000\n"))
    broken = rig.image("2.0.0", init="#!/bin/sh\necho no such luck\nexit 3\n")
    failed = await rig.ask(Operation.UPGRADE, 2, broken)
    assert isinstance(failed, InstanceFailed)
    assert (failed.error.code, failed.version) == (FailureCode.START, "2.0.0")
    assert "exit code 3" in failed.error.message
    assert "no such luck" in failed.error.message
    unstartable = rig.image("3.0.0", init="#!/nowhere/interpreter\n")
    failed = await rig.ask(Operation.UPGRADE, 3, unstartable)
    assert isinstance(failed, InstanceFailed)
    assert failed.error.code == FailureCode.START
    restored = await rig.ask(Operation.RESTORE, 4)
    assert isinstance(restored, InstanceRestored)
    assert restored.version == "1.0.0"  # the last one that was confirmed, not the broken 2.0.0


def custom_data(script: str) -> str:
    return seal(KEY, base64.b64encode(script.encode()).decode())


async def test_scripts_run_in_order_on_each_new_disk(rig: Rig) -> None:
    provisioning = Provisioning(
        generation=3,
        sealed_custom_data=custom_data(
            '#!/bin/sh\necho "custom $ROLLCALL_IMAGE_VERSION $(test -x ./init && echo root)"'
            ' >> "$ROLLCALL_DATA_DIR/order"\nenv > env\n'
        ),
        extensions=(
            Extension(
                name="first",
                sealed_protected_settings=seal(
                    KEY,
                    json.dumps({"commandToExecute": 'echo first >> "$ROLLCALL_DATA_DIR/order"'}),
                ),
            ),
            Extension(name="health", extension_type="ApplicationHealthLinux"),
            Extension(
                name="last",
                settings={"commandToExecute": 'echo last >> "$ROLLCALL_DATA_DIR/order"'},
            ),
        ),
    )
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"), provisioning)
    assert isinstance(created, InstanceCreated), created
    upgraded = await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"), provisioning)
    assert isinstance(upgraded, InstanceUpgraded), upgraded
    order = (rig.top / "data" / "0" / "order").read_text().splitlines()
    assert order == ["custom 1.0.0 root", "first", "last", "custom 2.0.0 root", "first", "last"]
    told = (rig.top / "os" / "env").read_text()
    assert "ROLLCALL_INSTANCE_ID=vm_0" in told
    assert "SECRETS" not in told
    assert "AMQP" not in told
    script = rig.top / "os" / ".rollcall" / "custom-data" / "script"
    assert script.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho oh dear >&2\nexit 7\n", "ended with exit code 7: oh dear"),
        ("echo no first line\nexit 5\n", "ended with exit code 5: no first line"),
        ("#!/bin/sh\nsleep 60 &\nsleep 60\n", "did not end within 0.3 s and was killed"),
    ],
)
async def test_custom_data_that_fails_fails_the_instance(
    make_rig: Callable[..., Rig], script: str, said: str
) -> None:
    rig = make_rig(custom_data_timeout=0.3)
    provisioning = Provisioning(generation=1, sealed_custom_data=custom_data(script))
    failed = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"), provisioning)
    assert isinstance(failed, InstanceFailed)
    assert (failed.error.code, failed.version) == (FailureCode.CUSTOM_DATA, "1.0.0")
    assert said in failed.error.message


async def test_custom_data_for_cloud_init_is_left_alone_where_there_is_none(rig: Rig) -> None:
    provisioning = Provisioning(
        generation=1, sealed_custom_data=custom_data("#cloud-config\npackages:\n  - nginx\n")
    )
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"), provisioning)
    assert isinstance(created, InstanceCreated), created
    assert not (rig.top / "os" / ".rollcall" / "custom-data").exists()


async def test_a_secret_of_another_key_is_named(rig: Rig) -> None:
    sealed = seal(new_key(), "anything")
    failed = await rig.ask(
        Operation.CREATE,
        1,
        rig.image("1.0.0"),
        Provisioning(generation=1, sealed_custom_data=sealed),
    )
    assert isinstance(failed, InstanceFailed)
    assert "ROLLCALL_SECRETS_KEY" in failed.error.message


@pytest.fixture
async def files() -> AsyncIterator[str]:
    """A file server: /open/…, /denied/…, and /private/… with the right token."""

    async def serve(request: web.Request) -> web.Response:
        match request.path.split("/")[1]:
            case "open":
                return web.Response(text='#!/bin/sh\necho "ran $1" >> "$ROLLCALL_DATA_DIR/order"\n')
            case "private" if request.query.get("sig") == "right":
                return web.Response(text="#!/bin/sh\nexit 0\n")
            case "missing":
                return web.Response(status=404)
            case _:
                return web.Response(status=403)

    app = web.Application()
    app.router.add_get("/{tail:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def script_extension(uri: str, command: str, *, protected: bool = False) -> Provisioning:
    settings = {"fileUris": [uri], "commandToExecute": command}
    sealed = seal(KEY, json.dumps(settings)) if protected else None
    return Provisioning(
        generation=1,
        extensions=(
            Extension(
                name="script",
                settings={} if protected else settings,
                sealed_protected_settings=sealed,
            ),
        ),
    )


async def test_an_extension_brings_its_files(rig: Rig, files: str) -> None:
    provisioning = script_extension(f"{files}/open/install.sh", "sh install.sh well")
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"), provisioning)
    assert isinstance(created, InstanceCreated), created
    assert (rig.top / "data" / "0" / "order").read_text() == "ran well\n"
    assert list((rig.top / "os" / ".rollcall").rglob("install.sh"))


@pytest.mark.parametrize(
    ("path", "code", "target"),
    [
        ("/denied/a.sh?sig=SECRET", FailureCode.CREDENTIALS, "/denied/a.sh"),
        ("/private/a.sh?sig=SECRET", FailureCode.CREDENTIALS, "/private/a.sh"),
        (
            "/open/a.sh?sv=1&se=2018-01-01T00:00:00Z&sig=SECRET",
            FailureCode.CREDENTIALS,
            "/open/a.sh",
        ),
        ("/missing/a.sh?sig=SECRET", FailureCode.EXTENSION, None),
    ],
)
@pytest.mark.parametrize("protected", [False, True])
async def test_expired_credentials_name_the_resource_and_never_the_token(
    rig: Rig, files: str, path: str, code: FailureCode, target: str | None, protected: bool
) -> None:
    provisioning = script_extension(files + path, "sh a.sh", protected=protected)
    failed = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"), provisioning)
    assert isinstance(failed, InstanceFailed)
    assert (failed.error.code, failed.error.target) == (
        code,
        files + target if target else "script",
    )
    assert "SECRET" not in failed.model_dump_json()
    # New credentials in the model, deployed to the failed instance: it goes on (M41).
    better = script_extension(f"{files}/private/a.sh?sig=right", "sh a.sh")
    again = await rig.ask(Operation.UPGRADE, 2, rig.image("1.0.0"), better)
    assert isinstance(again, InstanceUpgraded)


async def test_output_does_not_carry_secrets_away(rig: Rig, files: str) -> None:
    provisioning = script_extension(
        f"{files}/private/a.sh?sig=right", "echo sig=right; exit 4", protected=True
    )
    failed = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"), provisioning)
    assert isinstance(failed, InstanceFailed)
    assert failed.error.message == "extension 'script': the command ended with exit code 4: ***"


async def test_an_instance_that_stops_by_itself_is_told_once(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    os.kill(rig.pid(), signal.SIGKILL)
    await eventually(lambda: len(rig.reports) == 2)
    told = rig.reports[-1]
    assert isinstance(told, InstancePowerChanged)
    assert (told.attempt, told.power) == (1, Power.STOPPED)
    await rig.host.power.look_again(rig.report)
    assert len(rig.reports) == 2
    await rig.host.power.recover(rig.report)  # as at the agent's next start
    assert isinstance(rig.reports[-1], InstancePowerChanged)
    assert (len(rig.reports), rig.reports[-1].power) == (3, Power.RUNNING)


async def test_what_stopped_while_its_watch_had_failed_is_started_and_watched_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instance_agent.power._ASK_AGAIN", 0.01)
    ref = InstanceRef(scale_set=SET, instance_id="vm_0")
    driver: Any = rig.host.driver
    wait_stopped, observe = driver.wait_stopped, driver.observe
    failed = 0

    async def away(_: InstanceRef) -> Any:
        nonlocal failed
        failed += 1
        if failed == 2:
            raise RuntimeError("a driver's own mistake")
        raise OperationFailed(FailureCode.DRIVER, "it is away")

    driver.wait_stopped = away
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    await eventually(lambda: rig.boots() == ["1.0.0"])
    driver.observe = away
    await driver.stop(ref, 1)  # it goes down with what runs it
    await eventually(lambda: failed > 3)
    driver.wait_stopped, driver.observe = wait_stopped, observe
    await eventually(lambda: rig.boots() == ["1.0.0", "1.0.0"])
    assert rig.reports == [created]
    await driver.stop(ref, 1)
    await eventually(lambda: len(rig.reports) == 2)
    assert isinstance(rig.reports[-1], InstancePowerChanged)
    assert rig.reports[-1].power is Power.STOPPED


@pytest.mark.parametrize(
    ("outages", "failing", "told"), [(2, 3, []), (1, 4, [Power.STOPPED])], ids=["starts", "fails"]
)
async def test_what_does_not_start_again_is_tried_a_few_times_before_it_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, outages: int, failing: int, told: list[Power]
) -> None:
    """As where the engine below is back, and about to end once more; each outage counts anew."""
    monkeypatch.setattr("instance_agent.power._ASK_AGAIN", 0.01)
    ref = InstanceRef(scale_set=SET, instance_id="vm_0")
    driver: Any = rig.host.driver
    wait_stopped, start = driver.wait_stopped, driver.start
    starts, left = 0, outages

    async def gone(ref: InstanceRef) -> None:
        nonlocal left
        await wait_stopped(ref)
        left -= 1
        if left >= 0:
            raise OperationFailed(FailureCode.DRIVER, "it went away, too")

    async def begin(ref: InstanceRef, disk: Disk) -> Endpoint:
        nonlocal starts
        starts += 1
        if starts <= failing:
            raise OperationFailed(FailureCode.START, "it went away")
        endpoint: Endpoint = await start(ref, disk)
        return endpoint

    def is_up_again() -> bool:
        return len(rig.boots()) == 1 + outages - left and starts in (0, 4)

    def was_tried() -> bool:
        return starts == 4

    driver.wait_stopped = gone
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    driver.start = begin
    for _ in range(outages):
        await eventually(is_up_again)
        starts = 0
        async with rig.host.turn(ref):  # the start before it is over
            await driver.stop(ref, 1)
        await eventually(was_tried)
    if not told:
        await eventually(is_up_again)
    await eventually(lambda: len(rig.reports) == 1 + len(told))
    powers = [r.power for r in rig.reports if isinstance(r, InstancePowerChanged)]
    assert (rig.reports[0], powers) == (created, told)
    await asyncio.sleep(0.2)  # another start, or another report, would have come by now
    assert (starts, len(rig.reports)) == (4, 1 + len(told))


async def test_being_stopped_for_an_upgrade_is_not_told_as_a_change_of_power(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"))
    await rig.ask(Operation.DELETE, 3)
    await asyncio.sleep(0.1)  # a wrong report would have come by now
    kinds = [type(report) for report in rig.reports]
    assert kinds == [InstanceCreated, InstanceUpgraded, InstanceDeleted]


async def test_a_stopped_stack_boots_again(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    await get(created, "/health")
    await rig.close()
    assert await stop_all(rig.settings) == 0
    after = make_rig()
    await after.host.power.recover(after.report)
    assert await get(created, "/version") == (200, "1.0.0")
    assert after.boots() == ["1.0.0", "1.0.0"]
    assert after.reports == []  # as far as the control plane knows, it never stopped


async def test_an_instance_that_ignores_sigterm_is_killed(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(stop_grace=0.2)
    stubborn = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.05; done\n"
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0", init=stubborn))
    pid = rig.pid()
    assert isinstance(await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0")), InstanceUpgraded)
    assert procfs.identify(pid) is None


async def test_a_newer_attempt_ends_the_work_on_an_older_one(rig: Rig) -> None:
    v1 = rig.image("1.0.0")
    await rig.ask(Operation.CREATE, 1, v1)
    slow = Provisioning(
        generation=2, sealed_custom_data=custom_data("#!/bin/sh\necho $$ > pid\nexec sleep 300\n")
    )
    upgrade = asyncio.create_task(rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"), slow))
    pid_file = rig.top / "disks" / "000002-2.0.0" / "pid"
    await eventually(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    script = int(pid_file.read_text())
    restored = await rig.ask(Operation.RESTORE, 3)
    await upgrade
    assert isinstance(restored, InstanceRestored)
    assert restored.version == "1.0.0"
    assert procfs.identify(script) is None
    assert not any(isinstance(r, InstanceUpgraded | InstanceFailed) for r in rig.reports)


async def test_many_instances_get_a_port_each_and_one_download(rig: Rig, tmp_path: Path) -> None:
    v1 = rig.image("1.0.0")
    fetched = 0
    fetch = rig.host.images._download

    async def counted(image: Image, file: Path) -> None:
        nonlocal fetched
        fetched += 1
        await fetch(image, file)

    rig.host.images._download = counted  # type: ignore[method-assign]  # counts, and does it
    await asyncio.gather(
        *(rig.ask(Operation.CREATE, 1, v1, instance=str(number)) for number in range(12))
    )
    ports = {report.port for report in rig.reports if isinstance(report, InstanceCreated)}
    assert len(ports) == 12
    assert all(20000 <= port < 30000 for port in ports)
    assert fetched == 1


async def test_what_was_stopped_stays_stopped_until_it_is_started(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    assert isinstance(created, InstanceCreated)
    await eventually(lambda: rig.boots() == ["1.0.0"])
    stopped = await rig.ask(Operation.STOP, 2)
    assert isinstance(stopped, InstancePowered)
    assert stopped.power is Power.STOPPED
    await rig.close()

    after = make_rig()  # the agent, or its host, starts again
    await after.host.power.recover(after.report)
    await after.host.power.look_again(after.report)
    assert after.reports == []
    seen = await after.host.driver.observe(ref_of(after.host.journal.all()[0]))
    assert not seen.running
    assert await after.ask(Operation.STOP, 2) == stopped, "asked again: answered again"
    started = await after.ask(Operation.START, 3)
    assert isinstance(started, InstancePowered)
    assert (started.power, started.port) == (Power.RUNNING, created.port)
    await eventually(lambda: after.boots() == ["1.0.0", "1.0.0"])
    pid = after.pid()
    assert isinstance(await after.ask(Operation.START, 4), InstancePowered)
    assert after.pid() == pid, "it runs already"
    restarted = await after.ask(Operation.RESTART, 5)
    assert isinstance(restarted, InstancePowered)
    assert after.pid() != pid
    await eventually(lambda: after.boots() == ["1.0.0"] * 3)
    assert after.swaps() == 1, "the OS disk is the one that it was made from"


async def test_a_port_that_a_stranger_took_meanwhile_is_a_failed_start_until_it_is_free(
    rig: Rig,
) -> None:
    """Else the stranger's answers would pass for the instance's health."""
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    assert isinstance(created, InstanceCreated)
    await rig.ask(Operation.STOP, 2)
    with socket.create_server((created.address, created.port)):
        failed = await rig.ask(Operation.START, 3)
        assert isinstance(failed, InstanceFailed)
        assert failed.error.code == FailureCode.START
        assert f"port {created.port}, which is this instance's, is taken" in failed.error.message
    assert isinstance(await rig.ask(Operation.START, 4), InstancePowered)


async def test_a_creation_that_is_delivered_after_the_deletion_makes_nothing(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    image = rig.image("1.0.0")
    await rig.ask(Operation.CREATE, 1, image)
    assert isinstance(await rig.ask(Operation.DELETE, 2), InstanceDeleted)
    assert isinstance(await rig.ask(Operation.DELETE, 7, instance="vm_1"), InstanceDeleted)
    await rig.close()
    after = make_rig()
    for instance in ("vm_0", "vm_1"):
        order = Order(scale_set=SET, instance_id=instance, attempt=1, operation=Operation.CREATE)
        await after.host.carry_out(
            Job(order=order, image=image, provisioning=Provisioning(generation=1)), after.report
        )
    assert after.reports == []
    assert after.host.journal.all() == []
    made = await after.ask(Operation.CREATE, 8, image, instance="vm_1")
    assert isinstance(made, InstanceCreated), "a new request counts"


async def test_a_restore_that_comes_while_disks_are_swapped_leads_to_the_old_disk(
    rig: Rig,
) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    driver: Any = rig.host.driver
    swap, swapped = driver.swap, asyncio.Event()

    async def swap_and_be_late_to_say_so(ref: InstanceRef, old: str | None, new: str) -> None:
        await swap(ref, old, new)
        driver.swap = swap
        swapped.set()
        await asyncio.sleep(0.3)

    driver.swap = swap_and_be_late_to_say_so
    upgrade = asyncio.create_task(rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0")))
    await swapped.wait()
    restored = await rig.ask(Operation.RESTORE, 3)
    await upgrade
    assert isinstance(restored, InstanceRestored), restored
    assert restored.version == "1.0.0"
    assert rig.disks() == ["000001-1.0.0"]


async def test_a_swap_that_fails_when_it_is_done_leaves_the_disk_in_place_and_the_way_back(
    rig: Rig,
) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    driver: Any = rig.host.driver
    swap = driver.swap

    async def swap_and_fail(ref: InstanceRef, old: str | None, new: str) -> None:
        await swap(ref, old, new)
        raise OSError("the answer was lost")

    driver.swap = swap_and_fail
    failed = await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"))
    assert isinstance(failed, InstanceFailed)
    assert failed.version == "2.0.0"  # as it is
    assert rig.disks() == ["000001-1.0.0", "000002-2.0.0"]
    driver.swap = swap
    assert isinstance(await rig.ask(Operation.RESTORE, 3), InstanceRestored)


async def test_a_data_disk_that_is_gone_is_not_made_anew(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    pid, data = rig.pid(), rig.top / "data" / "0"
    (data / "precious").write_text("content")
    data.rename(rig.folder / "elsewhere")  # as where its file system is not mounted
    for operation in (Operation.UPGRADE, Operation.RESTART):
        image = rig.image("2.0.0") if operation is Operation.UPGRADE else None
        failed = await rig.ask(operation, 2, image)
        assert isinstance(failed, InstanceFailed), failed
        assert failed.error.code == FailureCode.DATA_DISK
        assert "data disk 0" in failed.error.message
        assert rig.pid() == pid  # nothing was stopped
        assert not data.exists()
    (rig.folder / "elsewhere").rename(data)
    assert isinstance(await rig.ask(Operation.UPGRADE, 3, rig.image("2.0.0")), InstanceUpgraded)
    assert (data / "precious").read_text() == "content"


async def test_an_instance_whose_data_disk_is_gone_is_not_started_by_an_agent(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    await rig.host.driver.stop(REF, 0.2)
    await rig.close()
    (rig.top / "data" / "0").rename(rig.folder / "elsewhere")
    rig.host = build_host(rig.settings)
    await rig.host.power.recover(rig.report)
    assert not (await rig.host.driver.observe(REF)).running
    (rig.folder / "elsewhere").rename(rig.top / "data" / "0")
    await rig.host.power.recover(rig.report)
    assert (await rig.host.driver.observe(REF)).running


async def test_another_data_disk_is_taken_when_the_instance_was_restarted_with_it(
    rig: Rig,
) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    data = rig.top / "data" / "0"
    data.rename(rig.folder / "old")
    shutil.copytree(rig.folder / "old", data)
    failed = await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"))
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.DATA_DISK
    assert isinstance(await rig.ask(Operation.RESTORE, 3), InstanceRestored)
    assert isinstance(await rig.ask(Operation.UPGRADE, 4, rig.image("2.0.0")), InstanceFailed)
    assert isinstance(await rig.ask(Operation.RESTART, 5), InstancePowered)
    assert isinstance(await rig.ask(Operation.UPGRADE, 6, rig.image("2.0.0")), InstanceUpgraded)


async def test_an_agent_whose_journal_lost_an_upgrade_starts_the_disk_in_place(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    old = rig.host.journal.get(SET, "vm_0")
    assert old is not None
    await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"))
    rig.host.journal.save(old)  # as a copy of the state folder may have it
    await rig.host.driver.stop(REF, 0.2)
    await rig.close()
    rig.host = build_host(rig.settings)
    await rig.host.power.recover(rig.report)
    await eventually(lambda: rig.boots()[-1:] == ["2.0.0"])
    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored), restored
    assert restored.version == "1.0.0"


async def test_an_agent_whose_driver_cannot_look_goes_on_and_puts_right_later(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    driver: Any = rig.host.driver
    observe = driver.observe

    async def away(ref: InstanceRef) -> object:
        raise OperationFailed(FailureCode.DRIVER, "the engine is away")

    driver.observe = away
    await driver.stop(REF, 0.2)
    await rig.host.power.recover(rig.report)
    await rig.host.power.look_again(rig.report)
    driver.observe = observe
    assert not (await driver.observe(REF)).running

    async def runs() -> bool:
        return bool((await driver.observe(REF)).running)

    await eventually(runs)


async def test_somebody_elses_copy_of_a_data_disk_is_left_alone(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    for name in ("0.bak", "lost+found", "00"):
        (rig.top / "data" / name).mkdir()
    assert isinstance(await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0")), InstanceUpgraded)
    assert set((await rig.host.driver.observe(REF)).data_disks) == {0}
    assert len(list((rig.top / "data").iterdir())) == 4


@pytest.mark.parametrize(("name", "content"), [("identity.json", ""), ("process.json", "{")])
async def test_a_damaged_file_is_the_failure_of_its_instance_alone(
    rig: Rig, name: str, content: str
) -> None:
    image = rig.image("1.0.0")
    await rig.ask(Operation.CREATE, 1, image)
    file = rig.top / name
    await rig.ask(Operation.CREATE, 1, image, instance="vm_1")
    await rig.close()
    whole = file.read_text()
    file.write_text(content)
    rig.host = build_host(rig.settings)
    await rig.host.power.recover(rig.report)
    failed = await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"))
    assert isinstance(failed, InstanceFailed), failed
    assert f"{name} is damaged" in failed.error.message
    other = await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"), instance="vm_1")
    assert isinstance(other, InstanceUpgraded), other
    file.write_text(whole)


async def test_an_instance_that_a_lost_journal_does_not_know_is_deleted(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    process = procfs.identify(rig.pid())
    assert process is not None
    await rig.close()
    for file in rig.settings.state_dir.glob("journal.sqlite*"):
        file.unlink()
    rig.host = build_host(rig.settings)
    driver: Any = rig.host.driver
    stop = driver.stop

    async def stuck(ref: InstanceRef, grace: float) -> None:
        raise OperationFailed(FailureCode.DRIVER, "it does not stop")

    driver.stop = stuck
    failed = await rig.ask(Operation.DELETE, 5)
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.message == "it does not stop"
    driver.stop = stop
    for _ in range(2):
        assert isinstance(await rig.ask(Operation.DELETE, 5), InstanceDeleted)
    assert not procfs.is_alive(process)
    assert list((rig.settings.state_dir / "instances").iterdir()) == []


async def test_a_fault_of_a_driver_that_nobody_thought_of_is_reported_and_stays_alone(
    rig: Rig,
) -> None:
    image = rig.image("1.0.0")
    for name in ("vm_0", "vm_1"):
        await rig.ask(Operation.CREATE, 1, image, instance=name)
    driver: Any = rig.host.driver
    commit, observe = driver.commit, driver.observe

    async def bad_commit(ref: InstanceRef, keep: frozenset[str]) -> None:
        if ref == REF:
            raise RuntimeError("a fault")
        await commit(ref, keep)

    driver.commit = bad_commit
    for name in ("vm_0", "vm_1"):
        done = await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0"), instance=name)
        assert isinstance(done, InstanceUpgraded), done

    async def bad_observe(ref: InstanceRef) -> object:
        if ref == REF:
            raise RuntimeError("a fault")
        return await observe(ref)

    driver.observe = bad_observe
    failed = await rig.ask(Operation.UPGRADE, 3, rig.image("2.0.0"))
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.message == "RuntimeError: a fault"
    driver.observe = observe


async def test_orders_of_one_delivery_are_carried_out_each_for_itself(rig: Rig) -> None:
    image = rig.image("1.0.0")
    request = InstancesCreateRequested(
        scale_set=SET,
        host=HOST,
        image=image,
        provisioning=Provisioning(generation=1),
        instances=tuple(InstanceOrder(instance_id=i, attempt=1) for i in ("vm_0", "vm_1")),
    )
    context: Any = SimpleNamespace(report=rig.report)
    carry_out = rig.host.carry_out

    async def bad(job: Job, report: Any) -> None:
        if job.order.instance_id == "vm_0":
            raise RuntimeError("a fault")
        await asyncio.sleep(0.1)
        await carry_out(job, report)

    host: Any = rig.host
    host.carry_out = bad
    with pytest.raises(ExceptionGroup):  # so that it comes again
        await handle(request, context, host=rig.host)
    assert [
        report.instance_id for report in rig.reports if isinstance(report, InstanceCreated)
    ] == ["vm_1"]


async def test_an_image_that_breaks_its_driver_is_a_fetch_that_failed(rig: Rig) -> None:
    event = ImageFetchRequested(
        scale_set=SET, host=HOST, upgrade_id=str(uuid4()), image=rig.image("1.0.0")
    )
    images: Any = rig.host.images

    async def broken(image: Image) -> Path:
        raise RecursionError("too deep")

    images.fetch = broken
    failed = await fetch(event, rig.host)
    assert isinstance(failed, ImageFetchFailed)
    assert failed.error.message == "RecursionError: too deep"


async def test_what_a_killed_agent_left_of_scripts_is_removed(rig: Rig) -> None:
    left = rig.settings.state_dir / "scratch" / "tmpabc"
    left.mkdir()
    (left / "script").write_text("PASSWORD=secret")
    build_host(rig.settings).journal.close()
    assert not left.exists()


async def test_an_instance_is_not_started_from_a_disk_that_is_not_in_place(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    await rig.host.driver.stop(REF, 0.2)
    with pytest.raises(OperationFailed, match="nothing was started"):
        await rig.host.driver.start(REF, Disk(name="000002-2.0.0", version="2.0.0", generation=2))
    assert not (await rig.host.driver.observe(REF)).running
