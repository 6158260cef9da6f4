"""What there is to run calls, and where the code that asks runs itself."""

from __future__ import annotations

from gridcore.sdk import session
from gridcore.sdk.context import Node, RuntimeContext


def nodes() -> list[Node]:
    """The machines that run calls; without a grid it is this one."""
    return session.engine().nodes()


def cluster_resources() -> dict[str, float]:
    """What they offer in all: "CPU", "memory" in bytes, and whatever else has a name."""
    return session.engine().resources(available=False)


def available_resources() -> dict[str, float]:
    """What of it no call or actor holds at the moment."""
    return session.engine().resources(available=True)


def report_progress(fraction: float, text: str = "") -> None:
    """In a call: how much of it is done, from 0 to 1; `gridcore.events()` has it in the program.

    Outside of calls it does nothing, so that functions can run by themselves.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"report_progress: {fraction!r} must be from 0 to 1")
    session.engine().report(float(fraction), text)


def get_runtime_context() -> RuntimeContext:
    """Where this code runs: in which job, on which node, in which call."""
    return session.engine().context()
