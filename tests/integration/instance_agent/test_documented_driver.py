"""The driver of docs/drivers.md, as it stands there: installed, and taken through the suite."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rollcall_testing.environments import install

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
KIND = """
from rollcall_testing.instances import InstanceKind

class HookKind(InstanceKind):
    driver = "hook"

KIND = HookKind()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a process needs to find the installed package, and the program that it calls."""
    text = (ROOT / "docs" / "drivers.md").read_text()
    text = text[text.index("## A whole small driver") :]
    blocks = dict(re.findall(r"```(toml|python|sh)\n(.*?)```", text, re.DOTALL))
    package = tmp_path / "package"
    module = package / "src" / "rollcall_hook_driver"
    module.mkdir(parents=True)
    (package / "pyproject.toml").write_text(blocks["toml"])
    (module / "__init__.py").write_text(blocks["python"])
    (module / "kind.py").write_text(KIND)
    program = tmp_path / "hook"
    program.write_text(blocks["sh"])
    program.chmod(0o755)
    site = tmp_path / "site"
    install(package, site)
    return {
        **os.environ,
        "PYTHONPATH": str(site),
        "ROLLCALL_HOOK_PROGRAM": str(program),
        "ROLLCALL_CONFORMANCE": "rollcall_hook_driver.kind:KIND",
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", ["test_conformance.py", "test_kill.py"])
def test_the_documented_driver_conforms(
    suite: str, environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", HERE / suite, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**environment, "PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tests = re.findall(r"^(?:async )?def test_", (HERE / suite).read_text(), re.MULTILINE)
    passed = re.search(r"^(\d+) passed in", done.stdout, re.MULTILINE)  # and nothing else
    assert passed is not None, done.stdout
    assert int(passed[1]) >= len(tests), done.stdout
