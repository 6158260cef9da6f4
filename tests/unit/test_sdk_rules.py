"""The SDK's rules that need no process: options, arguments, errors, bytes, what an import costs."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridcore
from gridcore.sdk.binding import checker
from gridcore.sdk.errors import GridError, NotPicklable, OutOfMemory, TaskError, describe
from gridcore.sdk.listening import Listener
from gridcore.sdk.options import actor_options, parse_bytes, task_options
from gridcore.sdk.outcomes import packed_error
from gridcore.sdk.packing import INLINE_BYTES, pack, unpack
from gridcore.sdk.progressing import LINE_EVERY_S, Lines
from gridcore.sdk.workers.endings import how_it_ended, worker_died
from gridcore.sdk.workers.memory import KernelKills, memory_limit, oom_kills

TOP = Path(__file__).parents[2]


def test_options_are_checked_where_they_are_written() -> None:
    with pytest.raises(TypeError, match=r"remote has no option 'retries'\. Known: .*max_retries"):
        gridcore.remote(retries=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a function has no option 'max_restarts'"):
        gridcore.remote(max_restarts=3)(len)
    with pytest.raises(TypeError, match="a class has no option 'num_returns'"):
        gridcore.remote(num_returns=3)(dict)
    with pytest.raises(TypeError, match="without parentheses"):
        gridcore.remote()
    with pytest.raises(TypeError, match="neither a function nor a class"):
        gridcore.remote(3)  # type: ignore[call-overload]


class Picky(Exception):
    """It takes other arguments than it passes on, as many do."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


def test_an_exception_survives_that_cannot_be_made_from_its_args() -> None:
    cause = Picky(7, why="no")
    packed = packed_error(
        TaskError.of(cause, remote_traceback="T", summary="f raised Picky: 7: no")
    )
    error = unpack(packed)
    assert isinstance(error, Picky)
    assert isinstance(error, TaskError)
    assert (str(error), error.code, error.remote_traceback) == ("7: no", 7, "T")
    assert repr(error) == repr(cause)


@pytest.mark.parametrize("cause", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_would_end_a_program_says_what_it_was(cause: BaseException) -> None:
    error = TaskError.of(cause, remote_traceback="T", summary=f"f raised {describe(cause)}")
    again = unpack(packed_error(error))
    assert str(again) == f"f raised {describe(cause)}"
    assert str(again) in repr(again)


def test_actor_is_remote_for_classes_only() -> None:
    class Counter:
        pass

    assert isinstance(gridcore.actor(Counter), gridcore.ActorClass)
    assert isinstance(gridcore.actor(max_restarts=2)(Counter), gridcore.ActorClass)
    for decorate in (gridcore.actor, gridcore.actor(max_restarts=2)):
        with pytest.raises(TypeError, match="is no class: write @remote above a function"):
            decorate(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no option 'max_restart'"):
        gridcore.actor(max_restart=2)  # type: ignore[call-overload]


def test_all_errors_are_at_the_top() -> None:
    from gridcore.sdk import errors

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.GridError):
            assert getattr(gridcore, name) is kind


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_cpus", -1),
        ("num_cpus", "two"),
        ("num_cpus", float("nan")),
        ("memory", "lots"),
        ("memory", -5),
        ("resources", ["gpu"]),
        ("resources", {"gpu": -1}),
        ("resources", {"CPU": 1}),
        ("max_retries", -2),
        ("max_retries", 1.5),
        ("max_retries", True),
        ("retry_exceptions", [int]),
        ("retry_exceptions", ValueError),
        ("timeout", 0),
        ("timeout", "1"),
        ("priority", 0.5),
        ("num_returns", -1),
        ("num_returns", "some"),
        ("name", 5),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=option):
        task_options({option: value})


def test_options_of_options_keep_the_others() -> None:
    base = task_options({"num_cpus": 2, "retry_exceptions": [KeyError]})
    assert task_options({"timeout": 3}, base=base) == task_options(
        {"num_cpus": 2, "retry_exceptions": [KeyError], "timeout": 3}
    )
    assert actor_options({"max_concurrency": 4}).max_concurrency == 4
    with pytest.raises(ValueError, match="max_concurrency"):
        actor_options({"max_concurrency": 0})


def test_memory_can_be_said_in_words() -> None:
    assert parse_bytes("2GiB") == 2 * 1024**3
    assert parse_bytes("1.5 MB") == 1_500_000
    assert parse_bytes("500") == parse_bytes(500) == 500


def test_arguments_are_bound_as_python_does() -> None:
    def function(a: int, /, b: int, *rest: int, c: int, d: int = 4, **more: int) -> None: ...

    check = checker(function, "f")
    check((1, 2), {"c": 3})
    check((1, 2, 3, 4), {"c": 3, "e": 5})
    for args, kwargs in [((1,), {"c": 1}), ((1, 2), {}), ((1, 2), {"b": 1, "c": 1})]:
        with pytest.raises(TypeError):
            check(args, kwargs)
    checker(min, "min")((1, 2), {})


class Unwilling(Exception):
    def __init__(self, *, needed: int) -> None:
        super().__init__(needed)


class Slotted(ValueError):
    __slots__ = ("code",)


@pytest.mark.parametrize(
    "cause",
    [
        ValueError("v"),
        KeyError("k"),
        FileNotFoundError(2, "none", "file"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        StopIteration(3),
        ExceptionGroup("several", [ValueError(1)]),
        Slotted("s"),
        TimeoutError(),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_a_task_error_is_what_the_function_raised(cause: Exception) -> None:
    error = TaskError.of(cause, remote_traceback="Traceback ...", summary="f raised")
    assert isinstance(error, type(cause))
    assert isinstance(error, TaskError)
    assert str(error) == str(cause)
    assert error.args == cause.args
    again: Any = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert isinstance(again, type(cause))
    assert isinstance(again, TaskError)
    assert again.remote_traceback == "Traceback ..."
    assert type(again.cause) is type(cause)


def test_attributes_go_with_an_exception() -> None:
    cause = ValueError("v")
    cause.code = 7  # type: ignore[attr-defined]
    cause.add_note("a note")
    error: Any = TaskError.of(cause, remote_traceback="T", summary="f raised")
    assert error.code == 7
    assert error.__notes__[0] == "a note"


def test_what_ends_programs_is_no_more_than_a_task_error() -> None:
    for cause in (SystemExit(1), KeyboardInterrupt()):
        error = TaskError.of(cause, remote_traceback="T", summary="f raised SystemExit: 1")
        assert not isinstance(error, type(cause))


def test_errors_say_what_was_tried_why_and_what_next_and_can_be_pickled() -> None:
    error = GridError("Doing this", cause="that", next_step="Do so")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(again) == str(error) == "Doing this: that. Do so"
    assert copy.copy(error).cause == "that"


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists, max_leaves=20))
def test_values_come_back_as_they_were(value: Any) -> None:
    assert unpack(pack(value, "a value")) == value


@given(st.lists(st.integers(0, 300_000), max_size=4))
def test_buffers_come_back_aligned_and_whole(sizes: list[int]) -> None:
    class Raw:
        def __init__(self, content: Any) -> None:
            self.content = memoryview(content)

        def __reduce_ex__(self, protocol: Any) -> Any:
            return Raw, (pickle.PickleBuffer(self.content),)

    values = [Raw(bytes([place + 1]) * size) for place, size in enumerate(sizes)]
    packed = pack(values, "values")
    assert (packed.blob is not None) == (packed.size > INLINE_BYTES)
    for place, raw in enumerate(unpack(packed)):
        assert bytes(raw.content) == bytes([place + 1]) * sizes[place]


def test_what_nobody_can_pickle_is_named() -> None:
    with pytest.raises(NotPicklable, match=r"Sending the thing: it cannot be pickled: TypeError"):
        pack((number for number in range(1)), "the thing")


def test_exit_codes_are_explained() -> None:
    assert how_it_ended(3) == "exited with code 3"
    assert how_it_ended(-11) == "was killed by signal 11 (SIGSEGV)"
    assert "out of memory" in how_it_ended(-9)
    assert how_it_ended(-9, "we did") == "was ended: we did"
    assert how_it_ended(None) == "is gone"


@pytest.mark.parametrize(
    ("memberships", "file", "content"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.events", "low 0\noom 4\noom_kill 3\n"),
        ("0::/\n", "sys/fs/cgroup/memory.events", "oom_kill 3\n"),
        (
            "5:cpu:/c\n4:hugetlb,memory:/a\n0::/\n",
            "sys/fs/cgroup/memory/a/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        ),
        ("4:memory:/docker/x\n", "sys/fs/cgroup/memory/memory.oom_control", "oom_kill 3\n"),
        ("0::/a\n", "proc/vmstat", "nr_free_pages 7\noom_kill 3\n"),
    ],
    ids=["v2", "v2 in a container", "v1", "v1 in a container", "the machine"],
)
def test_kills_for_memory_are_read_where_the_kernel_counts_them(
    tmp_path: Path, memberships: str, file: str, content: str
) -> None:
    for path, text in (("proc/self/cgroup", memberships), (file, content)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert oom_kills(tmp_path) == 3


@pytest.mark.parametrize(
    ("memberships", "file"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.max"),
        ("0::/\n", "sys/fs/cgroup/memory.max"),
        ("4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes"),
    ],
    ids=["v2", "v2 in a container", "v1"],
)
def test_how_much_memory_a_container_has_is_read_where_the_kernel_says_it(
    tmp_path: Path, memberships: str, file: str
) -> None:
    assert memory_limit(tmp_path) is None
    for path, text in (("proc/self/cgroup", memberships), (file, "1073741824\n")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert memory_limit(tmp_path) == 1 << 30
    for no_limit in ("max", "9223372036854771712"):
        (tmp_path / file).write_text(no_limit)
        assert memory_limit(tmp_path) is None


def test_where_nothing_counts_nothing_is_known(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None
    assert not KernelKills(lambda: None).explain(-9)


def test_each_counted_kill_explains_one_death() -> None:
    count = 5
    kills = KernelKills(lambda: count)
    assert not kills.explain(-9), "somebody else killed it"
    count = 7
    assert not kills.explain(-11)
    assert not kills.explain(None)
    assert [kills.explain(-9) for _ in range(3)] == [True, True, False]


def test_a_death_for_memory_says_what_to_do() -> None:
    how = how_it_ended(-9, is_out_of_memory=True)
    error = worker_died("f", 17, how, is_out_of_memory=True)
    assert isinstance(error, OutOfMemory)
    assert "process 17" in str(error)
    assert "memory=..." in str(error)


def test_progress_is_a_line_for_each_tenth_and_now_and_then() -> None:
    printed, now = io.StringIO(), [0.0]
    lines = Lines(200, printed, lambda: now[0])
    for done in (1, 19, 20, 21, 59, 60):
        lines.show(done)
    now[0] = LINE_EVERY_S
    for done in (60, 61, 62, 200):
        lines.show(done)
    assert printed.getvalue().splitlines() == [
        "20 of 200 (10 %) done",
        "59 of 200 (29 %) done",
        "60 of 200 (30 %) done",
        "61 of 200 (30 %) done",
        "200 of 200 (100 %) done",
    ]


def test_a_listener_that_nobody_reads_forgets_the_oldest() -> None:
    listener = Listener(2)
    for number in range(5):
        listener.note("submitted", str(number), "f", "", None)
    assert listener.dropped == 3
    assert [listener.take().id for _ in range(2)] == ["3", "4"]
    assert not listener


def test_public_names_are_few_and_all_there() -> None:
    names = [name for name in dir(gridcore) if name in gridcore._HOMES]
    assert len(names) == len(gridcore._HOMES) <= 50
    for name in names:
        assert getattr(gridcore, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gridcore.nothing


def test_importing_gridcore_loads_nothing_but_itself() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "import gridcore\n"
        "print(sorted(set(sys.modules) - before))\n"
        "gridcore.remote, gridcore.get, gridcore.init\n"
        "heavy = {'asyncio', 'cloudpickle', 'pydantic', 'subprocess', 'httpx', 'redis', 'docker'}\n"
        "print(sorted(set(sys.modules) & heavy))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=TOP
    ).stdout
    assert printed.splitlines() == ["['gridcore']", "[]"]
