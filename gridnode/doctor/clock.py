"""This machine's clock is the hub's. Leases do not need that, but logs and certificates do."""

from __future__ import annotations

import sys

from gridnode.doctor.check import Check, ok, problem, skipped, warning
from gridnode.doctor.hub import HealthAnswer

NAME = "clock"

WARN_FROM_S = 5.0
"""Beside this, what the hub's whole seconds and the way to it hide is small."""

PROBLEM_FROM_S = 60.0
"""From here on certificates that were just made are refused, and logs mislead."""


def check_clock(answer: HealthAnswer) -> Check:
    if answer.date is None:
        return skipped(NAME, "the hub's answer has no date")
    # The hub cut off what was beyond the second: half of one, on average.
    offset_s = answer.local_s - (answer.date.timestamp() + 0.5)
    return judge_clock(offset_s, is_macos=sys.platform == "darwin")


def judge_clock(offset_s: float, *, is_macos: bool = False) -> Check:
    """`offset_s` is above zero if this machine's clock is ahead."""
    if abs(offset_s) < WARN_FROM_S:
        return ok(NAME, "agrees with the hub's")
    direction = "ahead of" if offset_s > 0 else "behind"
    message = f"this machine's clock is {_duration(abs(offset_s))} {direction} the hub's"
    by_ntp = "'sudo sntp -sS pool.ntp.org'" if is_macos else "'sudo timedatectl set-ntp true'"
    fix = f"Let NTP set it: {by_ntp}; if this clock is right, do so on the hub's machine"
    judge = problem if abs(offset_s) >= PROBLEM_FROM_S else warning
    return judge(NAME, message, fix=fix)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86_400:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"
