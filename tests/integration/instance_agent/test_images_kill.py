"""kill -9 before any change that the image cache makes to its files."""

import asyncio
import json
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("killed_cache.py")


async def test_a_cache_is_right_after_kill_9_at_any_point(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, SCRIPT, tmp_path),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 280)
    assert process.returncode == 0
    found = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    assert len(found) > 60  # fetches, evictions, and what comes between
    for point, one in enumerate(found, start=1):
        where = f"killed at {point}: {one}"
        assert one["right"] == [True] * 4, where
        assert one["needed_kept"], where
        needed, *_, newest = one["keys"]
        assert {needed, newest} <= set(one["left"]), where
        assert set(one["left"]) <= {".locks", ".uses", *one["keys"]}, where
        assert one["bytes"] < 260_000, where
