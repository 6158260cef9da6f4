"""A socket opened inside another process's network namespace, on a real kernel."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from gridcore.platforms import PLATFORMS, platform_of
from gridnode.runtimes import namespaces
from gridnode.runtimes.holder_image import program_for
from gridnode.runtimes.namespaces import CannotEnter, listen_inside
from tests.support.fixtures import require
from tests.support.waiting import wait_until

WITHIN_S = 20.0
SLEEP = ["sleep", "1000"]
LISTENING = "0100007F:18EB 00000000:0000 0A"
"""127.0.0.1:6379 in a table of sockets."""

EMULATORS = {
    "linux/amd64": "qemu-x86_64-static",
    "linux/arm64": "qemu-aarch64-static",
    "linux/arm/v7": "qemu-arm-static",
}


@pytest.fixture(autouse=True)
def linux_and_root() -> None:
    require(None if sys.platform == "linux" and os.geteuid() == 0 else "only root can do that")


@contextmanager
def running(*command: str) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def listen(
    process: psutil.Process,
    command: list[str] = SLEEP,
    *,
    in_user_namespace: bool = False,
) -> None:
    """Opens it, looks whether it is there, and closes it."""

    async def opened() -> None:
        listener = await listen_inside(
            process.pid, command, "127.0.0.1", 6379, in_user_namespace=in_user_namespace
        )
        with listener:
            assert LISTENING in sockets_seen_by(str(process.pid))
            assert not listener.getblocking()

    asyncio.run(opened())


def sockets_seen_by(process: str) -> str:
    return Path(f"/proc/{process}/net/tcp").read_text()


@pytest.mark.parametrize("in_user_namespace", [False, True], ids=["root's", "a user's"])
def test_a_socket_is_opened_there_and_this_process_stays_where_it_is(
    in_user_namespace: bool,
) -> None:
    here = network_of_this_thread()
    user = ["--user", "--map-root-user"] if in_user_namespace else []
    with running("unshare", *user, "--net", *SLEEP) as process:
        listen(process, in_user_namespace=in_user_namespace)
    assert network_of_this_thread() == here
    assert LISTENING not in sockets_seen_by("thread-self")


def network_of_this_thread() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_a_network_that_is_this_machines_own_is_not_taken_for_a_containers() -> None:
    with running(*SLEEP) as process, pytest.raises(CannotEnter, match="this machine's own"):
        listen(process)


@pytest.mark.parametrize("in_user_namespace", [False, True])
def test_a_port_that_is_taken_there_is_an_error_in_words(in_user_namespace: bool) -> None:
    user = ["--user", "--map-root-user"] if in_user_namespace else []
    with running("unshare", *user, "--net", *SLEEP) as process:

        async def twice() -> None:
            arguments = (process.pid, SLEEP, "127.0.0.1", 6379)
            with await listen_inside(*arguments, in_user_namespace=in_user_namespace):
                await listen_inside(*arguments, in_user_namespace=in_user_namespace)

        with pytest.raises(CannotEnter, match="Address already in use"):
            asyncio.run(twice())


def test_another_process_of_that_number_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent in a container counts processes of its own, and finds some under each number."""
    monkeypatch.setattr(namespaces, "HOLDER_RUNS_WITHIN_S", 0.05)
    with (
        running("unshare", "--net", *SLEEP) as process,
        pytest.raises(CannotEnter, match="not to be seen here"),
    ):
        listen(process, ["sleep", "1001"])


def test_a_number_without_a_process_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "HOLDER_RUNS_WITHIN_S", 1000.0)
    with running("true") as process:
        pass
    with pytest.raises(CannotEnter, match="not to be seen here"):
        listen(process)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_holders_program_waits_until_it_is_killed(platform: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(program_for(platform))
    program.chmod(0o755)
    assert program.stat().st_size < 256
    emulator = [] if platform == platform_of(os.uname().machine) else [EMULATORS[platform]]
    if emulator:
        require(None if shutil.which(emulator[0]) else f"no {emulator[0]} on PATH")
    with running(*emulator, str(program)) as process:
        wait_until(
            lambda: process.status() == psutil.STATUS_SLEEPING and is_in_a_wait(process.pid),
            within_s=WITHIN_S,
            what="it waits",
        )
        # A signal that ends no process ends the wait as well; it begins the next.
        before = process.num_ctx_switches()
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        wait_until(
            lambda: process.num_ctx_switches() != before and is_in_a_wait(process.pid),
            within_s=WITHIN_S,
            what="it waits again",
        )


def is_in_a_wait(pid: int) -> bool:
    """In pause, ppoll or sigsuspend, which an emulator makes of pause."""
    number = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    numbers = {"x86_64": ("34", "271", "130"), "aarch64": ("73", "133")}
    return number in numbers[os.uname().machine]
