"""`progress`: how many of some calls are done, shown while they run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO, TypeVar, overload

from gridcore.sdk.refs import ObjectRef, engine_of, number_of

T = TypeVar("T")

REFRESH_S = 0.1

LINE_EVERY_S = 5.0
"""Where nobody watches live: after so long without a line there is another one."""


@overload
def progress(refs: Sequence[ObjectRef[T]], *, total: int | None = None) -> list[ObjectRef[T]]: ...
@overload
def progress(refs: Iterator[T], *, total: int | None = None) -> Iterator[T]: ...
def progress(refs: Any, *, total: int | None = None) -> Any:
    """Waits for all references and returns them; on the way it shows how many are done.

    A bar in a terminal, lines elsewhere, both on standard error. An iterator, such as that of
    `f.map(...)`, is passed on item by item: `total` is then how many there will be.
    """
    if isinstance(refs, Iterator):
        return _passed_on(refs, total)
    found = list(refs)
    for ref in found:
        if not isinstance(ref, ObjectRef):
            raise TypeError(
                f"progress: {type(ref).__name__} in the list is no ObjectRef. Pass references, or"
                " an iterator such as f.map(...) returns"
            )
    if found:
        _wait_for_all(found)
    return found


def _wait_for_all(refs: list[ObjectRef[Any]]) -> None:
    left = {number_of(ref) for ref in refs}
    total = len(left)
    engine = engine_of(refs[0])
    with _shown(total) as show:
        while left:
            # Not one by one: to wait for the first of many costs as much as to wait for all.
            left -= engine.wait(tuple(left), len(left), REFRESH_S)
            show(total - len(left))


def _passed_on(items: Iterator[T], total: int | None) -> Iterator[T]:
    with _shown(total) as show:
        for done, item in enumerate(items, start=1):
            show(done)
            yield item


def _shown(total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    return _as_bar(total) if sys.stderr.isatty() else _as_lines(total)


@contextmanager
def _as_bar(total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console  # late, as it takes longer than all of `gridcore`
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _as_lines(total: int | None) -> Iterator[Callable[[int], None]]:
    yield Lines(total, sys.stderr, time.monotonic).show


class Lines:
    """A line for each tenth that is done, and after LINE_EVERY_S without one."""

    def __init__(self, total: int | None, file: TextIO, clock: Callable[[], float]) -> None:
        self._total = total
        self._file = file
        self._clock = clock
        self._tenth = 0
        self._done = 0
        self._at = clock()

    def show(self, done: int) -> None:
        now = self._clock()
        tenth = 10 * done // self._total if self._total else 0
        is_late = done != self._done and now - self._at >= LINE_EVERY_S
        if tenth <= self._tenth and not is_late:
            return
        self._tenth, self._done, self._at = tenth, done, now
        of = f" of {self._total} ({100 * done // self._total} %)" if self._total else ""
        print(f"{done}{of} done", file=self._file, flush=True)
