"""What a check says. `gridnode doctor --output json` shows exactly this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gridcore.errors import GridCoreError

Status = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True)
class Check:
    name: str
    """Stable, for scripts."""
    status: Status
    message: str
    fix: str | None = None


def ok(name: str, message: str) -> Check:
    return Check(name, "ok", message)


def warning(name: str, message: str, *, fix: str) -> Check:
    """The node works, but not as well as it could."""
    return Check(name, "warning", message, fix)


def problem(name: str, message: str, *, fix: str) -> Check:
    """The node does not work, or not as safely as its owner thinks."""
    return Check(name, "problem", message, fix)


def skipped(name: str, reason: str) -> Check:
    return Check(name, "skipped", reason)


def from_error(name: str, error: GridCoreError, *, fix: str | None = None) -> Check:
    return problem(name, f"{error.tried}: {error.cause}", fix=fix or error.next_step)
