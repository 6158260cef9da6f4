"""`gridnode doctor`: checks this machine, and says what to mend."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import click

from gridnode.doctor import Check, examine
from gridnode.doctor.check import Status

SCHEMA = 1

_COLOUR: dict[Status, str] = {
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
    "skipped": "bright_black",
}


@click.command()
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json is one value, for programs.",
)
def doctor(output: str) -> None:
    """Checks this machine and says what to mend. Changes nothing but images for its tests.

    Exits with 0 if there is no problem (there may be warnings), else with 1.
    """
    try:
        checks = asyncio.run(_examine())
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    is_ok = all(check.status != "problem" for check in checks)
    if output == "json":
        click.echo(
            json.dumps(
                {"schema": SCHEMA, "ok": is_ok, "checks": [asdict(check) for check in checks]},
                indent=2,
            )
        )
    else:
        wants_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        click.echo(as_text(checks), color=wants_colour)
    sys.exit(0 if is_ok else 1)


async def _examine() -> list[Check]:
    # Cancelled, not killed: a container may have to be removed.
    examining = asyncio.current_task()
    assert examining is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, examining.cancel)
    return await examine(os.environ)


def as_text(checks: Sequence[Check]) -> str:
    """A line each, and one more with what to do where not all is well."""
    lines = []
    width = max(len(check.name) for check in checks) + 2
    for check in checks:
        status = click.style(f"{check.status}:", fg=_COLOUR[check.status])
        lines.append(f"{check.name:<{width}}{status} {check.message}")
        if check.fix:
            lines.append(f"{'':<{width}}To mend it: {check.fix}")
    return "\n".join([*lines, "", _summary(checks)])


def _summary(checks: Sequence[Check]) -> str:
    counts = Counter(check.status for check in checks)
    found = [
        f"{counts[status]} {status}{'s' if counts[status] > 1 else ''}"
        for status in ("problem", "warning")
        if counts[status]
    ]
    skipped = f" ({counts['skipped']} skipped)" if counts["skipped"] else ""
    return (" and ".join(found) or "All is well") + skipped + "."
