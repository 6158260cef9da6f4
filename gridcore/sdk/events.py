"""`events`: what happens to this program's calls, as it happens."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from gridcore.sdk import session
from gridcore.sdk.engine import Engine
from gridcore.sdk.listening import MOST_KEPT, Event, Listener


def events() -> Events:
    """What happens from now on, in this order; see Event for the kinds.

    `with gridcore.events() as events: ... for event in events:` waits for the next one; the loop
    ends when it is closed, also by another thread, or the engine is shut down. 10,000 events wait
    to be read; then the oldest are dropped, and `dropped` counts them.
    """
    return Events(session.engine())


class Events:
    """An iterator over events that has to be closed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listener = Listener(MOST_KEPT)
        engine.subscribe(self._listener)

    @property
    def dropped(self) -> int:
        """Events that nobody read in time."""
        return self._listener.dropped

    def close(self) -> None:
        self._engine.unsubscribe(self._listener)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._engine.wait_for_note(self._listener):
            return self._listener.take()
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
