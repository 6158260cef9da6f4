"""How a run ended, and when its slot may start the next one. No I/O, no clock.

ended well (exit 0)        again at once
crashed, could not start   again after 1 s, then 2, 4, ... 60 s, give or take a fifth
exit 0 soon, for nothing   the third time in a row, as after a crash
sat on an item for long    again at once; the task's item_timeout has ended it
crashed on a known item    again at once: it had failed before, and has a pause of its own
not its own doing          again at once: the engine was restarted, or we stopped it
"""

from __future__ import annotations

from dataclasses import dataclass

from gridcore.wire import FailureReason

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

GOOD_RUN_S = 60.0
"""A run that lasted this long was no crash at start-up: counting begins anew."""

SHORT_RUN_S = 10.0
"""Programs that look at the wrong queue wait there for some seconds before they give up."""

FRUITLESS_RUNS = 3


@dataclass(frozen=True)
class Ended:
    """One run, seen from outside."""

    exit_code: int | None
    """None when nobody can tell, or it never started."""
    ran_s: float
    out_of_memory: bool = False
    log_lines: tuple[str, ...] = ()
    was_ours: bool = False
    """The node or its engine ended it: nothing is said about the program."""
    start_error: str | None = None
    took_nothing: bool = False
    """There was something to do, and it did not ask for it."""
    made_progress: bool = False
    """Some of its items are done: that one crashes says nothing about the next."""
    had_suspects_only: bool = False
    """All that it had in hand had failed before: that is known of the items."""
    sat_on_an_item: bool = False
    """It was killed for it, by the task's item_timeout."""


@dataclass(frozen=True)
class Next:
    pause_s: float
    failure: FailureReason | None = None
    message: str = ""


class RestartRule:
    """One slot's memory of how its runs have ended."""

    def __init__(self) -> None:
        self._failures = 0
        self._fruitless = 0

    def after(self, ended: Ended, *, jitter: float) -> Next:
        """What to do next; `jitter` is a number from 0 to 1."""
        if ended.was_ours:
            return Next(0.0)
        if ended.ran_s >= GOOD_RUN_S or ended.made_progress:
            self._failures = 0
        if ended.exit_code == 0:
            return self._after_success(ended, jitter)
        self._fruitless = 0
        if ended.start_error is not None:
            return Next(self._pause_s(jitter), "start", ended.start_error)
        if ended.sat_on_an_item:
            # The item waits before it is tried again; the slot need not.
            return Next(0.0, "item_timeout", "It was killed: an item took longer than item_timeout")
        if ended.out_of_memory:
            return Next(
                self._pause_s(jitter),
                "out_of_memory",
                "It needed more memory than container_memory in gridnode.toml allows"
                f" (exit code {ended.exit_code})",
            )
        # (A program that crashes on whatever it gets is slowed down by what is new.)
        pause_s = 0.0 if ended.had_suspects_only else self._pause_s(jitter)
        return Next(pause_s, "exit", f"It ended with exit code {_shown(ended.exit_code)}")

    def _after_success(self, ended: Ended, jitter: float) -> Next:
        if not (ended.took_nothing and ended.ran_s < SHORT_RUN_S):
            self._failures = self._fruitless = 0
            return Next(0.0)
        self._fruitless += 1
        if self._fruitless < FRUITLESS_RUNS:
            return Next(0.0)
        return Next(
            self._pause_s(jitter),
            "fruitless",
            f"It exited with code 0 {self._fruitless} times in a row and took nothing from the"
            " input queue, which is not empty: does the image read INPUT_REDIS_URL and"
            " INPUT_QUEUE?",
        )

    def _pause_s(self, jitter: float) -> float:
        self._failures += 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 16))
        return pause_s * (0.8 + 0.4 * jitter)


def _shown(exit_code: int | None) -> str:
    if exit_code is None:
        return "unknown"
    if exit_code < 0 or exit_code > 128:
        return f"{exit_code} (signal {-exit_code if exit_code < 0 else exit_code - 128})"
    return str(exit_code)
