"""Large values: shared, read-only, freed, spilled."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import gc
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gridcore
from gridcore.sdk import session
from gridcore.sdk.packing import INLINE_BYTES
from tests.sdk.signals import WITHIN_S, reach, times_reached
from tests.support.waiting import wait_until

LARGE = 10 * INLINE_BYTES


class Picture:
    """Pickles with an out-of-band buffer, as an array does."""

    def __init__(self, pixels: Any) -> None:
        self.pixels = memoryview(pixels)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Picture, (pickle.PickleBuffer(self.pixels),)


@gridcore.remote
def paint(size: int, value: int) -> Picture:
    return Picture(bytes([value]) * size)


@gridcore.remote
def look(picture: Picture) -> tuple[int, int, bool]:
    return len(picture.pixels), picture.pixels[-1], picture.pixels.readonly


@pytest.fixture
def shared_memory() -> Iterator[None]:
    """Nothing that a test made is left when it is over."""
    before = _memfds()
    yield
    gc.collect()
    wait_until(lambda: _memfds() <= before, within_s=WITHIN_S, what="its shared memory is freed")


def _memfds() -> int:
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            count += "memfd:gridcore" in str(fd.readlink())
        except OSError:
            continue
    return count


@pytest.mark.usefixtures("engine", "shared_memory")
class TestLargeValues:
    def test_arguments_results_and_put_values_are_shared_read_only(self) -> None:
        picture = gridcore.get(paint.remote(LARGE, 7), timeout=WITHIN_S)
        assert len(picture.pixels) == LARGE
        assert picture.pixels[-1] == 7
        assert picture.pixels.readonly
        assert gridcore.get(look.remote(picture), timeout=WITHIN_S) == (LARGE, 7, True)
        assert gridcore.get(look.remote(gridcore.put(picture))) == (LARGE, 7, True)  # type: ignore[arg-type]

    def test_a_result_goes_from_call_to_call(self) -> None:
        refs = [look.remote(paint.remote(LARGE, n)) for n in range(20)]  # type: ignore[arg-type]
        assert gridcore.get(refs, timeout=WITHIN_S) == [(LARGE, n, True) for n in range(20)]

    def test_values_around_the_limit_arrive_whole(self) -> None:
        for size in (0, 1, INLINE_BYTES - 200, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1):
            content = os.urandom(size)
            assert gridcore.get(gridcore.put(content)) == content
            assert gridcore.get(gridcore.put(bytearray(content))) == content

    def test_a_view_outlives_its_reference(self) -> None:
        ref = paint.remote(LARGE, 3)
        picture = gridcore.get(ref, timeout=WITHIN_S)
        del ref
        gridcore.get(look.remote(picture), timeout=WITHIN_S)
        assert bytes(picture.pixels[:2]) == b"\3\3"

    def test_more_values_than_a_message_takes_descriptors(self) -> None:
        @gridcore.remote
        def add_up(refs: list[gridcore.ObjectRef[Picture]]) -> int:
            return sum(picture.pixels[0] for picture in gridcore.get(refs))

        refs = [gridcore.put(Picture(b"\1" * (INLINE_BYTES + 1))) for _ in range(450)]
        assert gridcore.get(add_up.remote(refs), timeout=WITHIN_S) == 450

    def test_a_value_inside_a_value_lives_as_long_as_that(self) -> None:
        @gridcore.remote
        def wrap() -> list[gridcore.ObjectRef[Picture]]:
            return [gridcore.put(Picture(b"\5" * LARGE))]

        outer = wrap.remote()
        gridcore.wait([outer], timeout=WITHIN_S)
        gridcore.get([look.remote(Picture(b"\1")) for _ in range(20)], timeout=WITHIN_S)
        (inner,) = gridcore.get(outer)
        del outer
        assert gridcore.get(inner).pixels[0] == 5

    def test_a_worker_that_keeps_a_reference_keeps_the_value(self) -> None:
        @gridcore.remote
        class Keeper:
            def keep(self, refs: list[gridcore.ObjectRef[Picture]]) -> None:
                self.refs = refs

            def show(self) -> int:
                return gridcore.get(self.refs[0]).pixels[0]

        keeper = Keeper.remote()
        ref = gridcore.put(Picture(b"\6" * LARGE))
        gridcore.get(keeper.keep.remote([ref]), timeout=WITHIN_S)
        del ref
        gc.collect()
        gridcore.get(look.remote(Picture(b"\1")), timeout=WITHIN_S)
        assert gridcore.get(keeper.show.remote(), timeout=WITHIN_S) == 6

    def test_a_worker_killed_while_it_puts_leaves_nothing(self, tmp_path: Path) -> None:
        @gridcore.remote
        def put_and_die(point: Path) -> Picture:
            kept = gridcore.put(Picture(b"\2" * LARGE))
            reach(point)
            if times_reached(point) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return gridcore.get(kept)

        picture = gridcore.get(put_and_die.remote(tmp_path / "p"), timeout=WITHIN_S)
        assert picture.pixels[0] == 2

    def test_an_array_is_a_view(self) -> None:
        numpy = pytest.importorskip("numpy")
        array = gridcore.get(gridcore.put(numpy.arange(1_000_000)))
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.ctypes.data % 64 == 0
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_references_can_only_be_pickled_for_calls(engine: str) -> None:
    with pytest.raises(gridcore.GridError, match="references only mean something inside calls"):
        pickle.dumps(gridcore.put(1))


def test_beyond_the_limit_the_oldest_values_go_to_disk_without_a_name(tmp_path: Path) -> None:
    gridcore.shutdown()
    gridcore.init(num_cpus=1, object_store_memory="3 MB", spill_dir=str(tmp_path))
    try:
        refs = [gridcore.put(Picture(bytes([n]) * 1_000_000)) for n in range(10)]
        keeper = session.require().keeper
        assert keeper.in_memory <= 3_000_000
        assert keeper.on_disk >= 7_000_000
        assert [gridcore.get(ref).pixels[0] for ref in refs] == list(range(10))
        assert gridcore.get([look.remote(ref) for ref in refs], timeout=WITHIN_S) == [  # type: ignore[arg-type]
            (1_000_000, n, True) for n in range(10)
        ]
        assert list(tmp_path.iterdir()) == []
        del refs
        gc.collect()
        more = [gridcore.put(Picture(b"\1" * 1_000_000)) for _ in range(2)]
        assert keeper.in_memory <= 3_000_000
        assert len(more) == 2
    finally:
        gridcore.shutdown()


def test_more_large_references_than_one_message_takes_are_an_error_that_says_so() -> None:
    @gridcore.remote
    def count(*values: bytes) -> int:
        return len(values)

    large = gridcore.put(bytes(200_000))
    assert gridcore.get(count.remote(*[large] * 150), timeout=WITHIN_S) == 150  # type: ignore[arg-type]
    with pytest.raises(gridcore.PayloadTooLarge, match="Pass a list of the references"):
        gridcore.get(count.remote(*[large] * 300), timeout=WITHIN_S)  # type: ignore[arg-type]


def test_so_are_more_large_results() -> None:
    @gridcore.remote
    def many(count: int) -> list[bytes]:
        return [bytes(200_000)] * count

    few = many.options(num_returns=150).remote(150)
    assert [len(value) for value in gridcore.get(few, timeout=WITHIN_S)] == [200_000] * 150
    with pytest.raises(gridcore.PayloadTooLarge, match="Return them in a list, or yield them"):
        gridcore.get(many.options(num_returns=300).remote(300), timeout=WITHIN_S)
