"""There is space where the engine keeps images."""

from __future__ import annotations

import shutil

from gridnode.doctor.check import Check, ok, problem, skipped, warning

NAME = "disk"

WARN_BELOW_BYTES = 5 * 10**9
"""A task's image of the common size, twice: the next one is pulled while this one still runs."""

PROBLEM_BELOW_BYTES = 10**9


def check_disk(data_folder: str, *, engine_is_local: bool) -> Check:
    if not engine_is_local:
        return skipped(NAME, "the engine is on another machine")
    try:
        return judge_disk(shutil.disk_usage(data_folder).free, data_folder)
    except FileNotFoundError:
        return skipped(NAME, f"the engine's {data_folder} is not here but in a virtual machine")
    except OSError as error:
        return skipped(NAME, f"{data_folder}: {error.strerror}")


def judge_disk(free_bytes: int, folder: str) -> Check:
    message = f"{free_bytes / 10**9:.1f} GB free for images, in {folder}"
    if free_bytes >= WARN_BELOW_BYTES:
        return ok(NAME, message)
    judge = problem if free_bytes < PROBLEM_BELOW_BYTES else warning
    return judge(
        NAME,
        message,
        fix="'docker system df' shows what takes the space; 'docker image prune -a' removes all"
        " images that no container uses",
    )
