"""How far a task is: a live bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

import click
import rich.progress

SPEED_OVER_S = 5.0
"""The speed shown is that of the last seconds: long enough not to flicker."""

LINE_EVERY_S = 3.0


class Speed:
    """Items per second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, done: int, now_s: float) -> float:
        self._seen.append((now_s, done))
        while len(self._seen) > 2 and self._seen[0][0] < now_s - SPEED_OVER_S:
            self._seen.popleft()
        (then_s, before), span_s = self._seen[0], now_s - self._seen[0][0]
        return (done - before) / span_s if now_s > then_s else 0.0


class Progress:
    def __init__(self, items: int, *, live: bool) -> None:
        self._items = items
        self._speed = Speed()
        self._next_line_s = 0.0
        self._bar: rich.progress.Progress | None = None
        if live:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(),
                rich.progress.TaskProgressColumn(),
                rich.progress.TextColumn("{task.description}"),
            )
            self._row = self._bar.add_task("", total=items)

    def update(self, *, done: int, waiting: int, now_s: float) -> None:
        text = self._describe(done, waiting, self._speed.update(done, now_s))
        if self._bar:
            self._bar.update(self._row, completed=done, description=text)
        elif now_s >= self._next_line_s or done == self._items:
            click.echo(f"{done / self._items:4.0%}  {text}")
            self._next_line_s = now_s + LINE_EVERY_S

    def _describe(self, done: int, waiting: int, per_second: float) -> str:
        left = self._items - done
        eta = f"{left / per_second:,.0f} s" if per_second and left else "-" if left else "0 s"
        return f"{per_second:,.0f} items/s, {waiting:,} waiting, {done:,} done, ETA {eta}"

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
