"""Processes of nodes that run beside each other on one machine."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path

import pytest

from gridnode.runtimes import RunOrder
from gridnode.runtimes.process import ProcessRuntime

SLEEP = RunOrder(
    name="r", task="t", slot=0, core=None, image=None, command=["sleep", "3600"], environment={}
)


def test_a_node_ends_what_it_left_and_nothing_of_another_one_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def node(folder: str) -> ProcessRuntime:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / folder))
        return ProcessRuntime(node_id="n", memory_mb=100)

    async def scene() -> None:
        run = await node("one").start(SLEEP)
        assert await node("other").remove_leftovers() == 0
        assert await node("one").remove_leftovers() == 1
        assert (await run.wait()).exit_code == -signal.SIGKILL
        assert not list((tmp_path / "one").iterdir())

    asyncio.run(scene())
