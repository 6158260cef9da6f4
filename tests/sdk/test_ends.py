"""The engine on this machine: its start, its end, its limits, and a driver that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

import gridcore
from gridcore.sdk import session
from gridcore.sdk.driver.engine import LOOK_EVERY
from tests.sdk.signals import WITHIN_S, reach, wait_for, wait_reached
from tests.support.waiting import wait_until

TOP = Path(__file__).parents[2]


@gridcore.remote
def process() -> int:
    return os.getpid()


@gridcore.remote
def meet(folder: Path, name: str) -> int:
    reach(folder / name)
    wait_for(folder / "go")
    return os.getpid()


@pytest.fixture(autouse=True)
def _no_engine() -> None:
    gridcore.shutdown()


def test_the_first_call_starts_an_engine() -> None:
    assert not gridcore.is_initialized()
    assert gridcore.get(process.remote(), timeout=WITHIN_S) != os.getpid()
    assert gridcore.is_initialized()
    with pytest.raises(RuntimeError, match=r"Call gridcore.shutdown first"):
        gridcore.init()
    gridcore.init(ignore_reinit_error=True)
    gridcore.shutdown()
    gridcore.shutdown()
    assert not gridcore.is_initialized()


def test_references_of_an_engine_that_was_shut_down_say_so() -> None:
    gridcore.init(num_cpus=1)
    ref = process.remote()
    gridcore.shutdown()
    with pytest.raises(gridcore.NotConnected):
        gridcore.get(ref)
    gridcore.init(num_cpus=1)
    with pytest.raises(gridcore.NotConnected, match="belongs to an engine that was shut down"):
        gridcore.get(ref)
    gridcore.shutdown()


def test_who_submits_too_much_waits_until_some_of_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gridcore.sdk.driver.engine.MOST_OPEN_CALLS", 200)
    gridcore.init(num_cpus=2)
    core = session.require()._core  # type: ignore[attr-defined]
    refs, most = [], 0
    for _ in range(3000):
        refs.append(process.remote())
        most = max(most, core.open_calls)
    assert most <= 200 + LOOK_EVERY
    assert len(set(gridcore.get(refs, timeout=WITHIN_S))) <= 2
    gridcore.shutdown()


def test_it_does_not_wait_for_calls_that_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gridcore.sdk.driver.engine.MOST_OPEN_CALLS", 50)
    monkeypatch.setattr("gridcore.sdk.driver.engine.PATIENCE_S", 0.01)
    gridcore.init(num_cpus=2)
    refs = [meet.remote(tmp_path, "a") for _ in range(200)]
    reach(tmp_path / "go")
    assert len(gridcore.get(refs, timeout=WITHIN_S)) == 200
    gridcore.shutdown()


def test_init_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="num_cpus=0"):
        gridcore.init(num_cpus=0)
    with pytest.raises(ValueError, match="'much' is no amount of memory"):
        gridcore.init(object_store_memory="much")
    assert not gridcore.is_initialized()


def template_of(driver: psutil.Process) -> psutil.Process:
    """Its other children are what other tests have started."""
    (template,) = (
        child
        for child in driver.children()
        if "gridcore.sdk.workers.template" in " ".join(child.cmdline())
    )
    return template


def test_shutdown_ends_all_processes(tmp_path: Path) -> None:
    gridcore.init(num_cpus=2)
    refs = [meet.remote(tmp_path, name) for name in ("a", "b")]
    wait_reached(tmp_path / "a")
    wait_reached(tmp_path / "b")
    template = template_of(psutil.Process())
    processes = [template, *template.children(recursive=True)]
    assert len(processes) == 3
    gridcore.shutdown()
    _, alive = psutil.wait_procs(processes, timeout=WITHIN_S)
    assert not alive
    del refs


def test_workers_run_side_by_side(tmp_path: Path) -> None:
    gridcore.init(num_cpus=2)
    refs = [meet.remote(tmp_path, name) for name in ("a", "b")]
    wait_reached(tmp_path / "a")
    wait_reached(tmp_path / "b")
    reach(tmp_path / "go")
    assert len(set(gridcore.get(refs, timeout=WITHIN_S))) == 2
    gridcore.shutdown()


def test_when_the_process_that_workers_come_from_is_killed_calls_are_repeated(
    tmp_path: Path,
) -> None:
    gridcore.init(num_cpus=2)
    refs = [meet.remote(tmp_path, name) for name in ("a", "b")]
    wait_reached(tmp_path / "a")
    wait_reached(tmp_path / "b")
    template_of(psutil.Process()).kill()
    wait_reached(tmp_path / "a", times=2)
    wait_reached(tmp_path / "b", times=2)
    reach(tmp_path / "go")
    assert len(gridcore.get(refs, timeout=WITHIN_S)) == 2
    gridcore.shutdown()


DRIVER = """
    import sys, time
    from pathlib import Path
    import gridcore

    folder = Path(sys.argv[1])

    class Value:
        def __init__(self, content):
            self.content = content

    @gridcore.remote
    def block(name, value):
        (folder / name).write_text("x")
        while True:
            time.sleep(0.01)

    @gridcore.remote
    class Actor:
        def block(self):
            (folder / "actor").write_text("x")
            while True:
                pass

    if __name__ == "__main__":
        gridcore.init(num_cpus=2, object_store_memory=1_000_000, spill_dir=str(folder))
        kept = [gridcore.put(Value(b"x" * 900_000)) for _ in range(3)]
        refs = [block.remote(name, kept[0]) for name in ("one", "two")]
        actor = Actor.remote()
        refs.append(actor.block.remote())
        gridcore.get(refs)
"""


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_driver_that_is_killed_leaves_no_process_and_no_file(
    tmp_path: Path, whole_group: bool
) -> None:
    program = tmp_path / "driver.py"
    program.write_text(textwrap.dedent(DRIVER))
    before = _shared_files()
    driver = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path)],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP), "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    try:
        for point in ("one", "two", "actor"):
            wait_reached(tmp_path / point)
        children = psutil.Process(driver.pid).children(recursive=True)
        assert len(children) == 4, "a template, two workers, an actor"
    finally:
        if whole_group:
            os.killpg(driver.pid, signal.SIGKILL)
        else:
            driver.kill()
        driver.wait()
    _, alive = psutil.wait_procs(children, timeout=WITHIN_S)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert {path.name for path in tmp_path.iterdir()} == {"driver.py", "one", "two", "actor"}
    assert _shared_files() <= before


def _shared_files() -> set[Path]:
    """What gridcore or `multiprocessing` would name; other tests that run now have others there."""
    folder = Path("/dev/shm")
    return {*folder.glob("*gridcore*"), *folder.glob("psm_*")}


def test_a_program_that_ends_ends_its_engine(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import gridcore, os\n"
        "@gridcore.remote\n"
        "def who(): return os.getpid(), os.getppid()\n"
        "print(*gridcore.get(who.remote()))\n"
        "class Kind(Exception): pass\n"
        "@gridcore.remote\n"
        "def fails(): raise Kind('own')\n"
        "try: gridcore.get(fails.remote())\n"
        "except Kind as error: print('caught', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        check=False,
    )
    assert done.stderr == ""
    ids, caught = done.stdout.splitlines()
    assert caught == "caught own", "a class of the main program keeps its identity"
    wait_until(
        lambda: not any(psutil.pid_exists(int(number)) for number in ids.split()),
        within_s=WITHIN_S,
        what="its processes are gone",
    )


def test_a_forked_child_has_an_engine_of_its_own(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import gridcore, os\n"
        "@gridcore.remote\n"
        "def two(): return 2\n"
        "assert gridcore.get(two.remote()) == 2\n"
        "child = os.fork()\n"
        "assert gridcore.get(two.remote()) == 2\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
        "assert gridcore.get(two.remote()) == 2\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


FULL_SHARED_MEMORY = """
    import gridcore

    gridcore.init(num_cpus=1, local=True)

    @gridcore.remote
    def doubled(value):
        return value * 2

    value = gridcore.put(bytes(20_000_000))
    print(len(gridcore.get(doubled.remote(value))))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small /dev/shm"
)
def test_a_full_dev_shm_is_in_nobodys_way(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(FULL_SHARED_MEMORY))
    # A mount of its own, which goes with the shell.
    small = "mount -t tmpfs -o size=64k tmpfs /dev/shm && head -c 64k /dev/zero > /dev/shm/full"
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{small} && exec "$@"', "sh", sys.executable, program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "40000000\n"), ended.stderr


def test_workers_that_never_start_are_an_error_and_not_a_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    monkeypatch.setattr("gridcore.sdk.workers.crew._PROGRAM", "raise SystemExit(1)")
    gridcore.init(num_cpus=2)
    with pytest.raises(gridcore.WorkerDied, match="ended before they had begun"):
        gridcore.get(process.remote(), timeout=WITHIN_S)
    gridcore.shutdown()


MANY_VALUES = """
import resource
import gridcore

@gridcore.remote
def size(value):
    return len(value)

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, min(most, 1000)))
gridcore.init(num_cpus=1)
refs = [gridcore.put(bytes(110_000)) for _ in range(400)]
print(sum(gridcore.get([size.remote(ref) for ref in refs])))
try:
    refs += [gridcore.put(bytes(110_000)) for _ in range(1000)]
except gridcore.PayloadTooLarge as error:
    print(error)
refs.clear()
gridcore.get(size.remote(b"whatever is next sees to what was let go"))
print(gridcore.get(size.remote(bytes(110_000))))
"""


def test_more_large_values_than_files_may_be_open_by_default() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MANY_VALUES], capture_output=True, text=True, check=False
    )
    total, error, after = ran.stdout.splitlines()
    assert (total, after) == ("44000000", "110000")
    assert "as many as it may" in error
    assert ran.returncode == 0
