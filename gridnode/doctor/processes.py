"""With runtime = "process": the same limits, tried the same way."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path

from gridnode.cores import usable_cores
from gridnode.doctor import probe
from gridnode.doctor.check import Check, ok, problem, warning
from gridnode.doctor.limits import CPU_LIMIT, MEMORY_LIMIT
from gridnode.ending import Ended
from gridnode.runtimes import CannotStart, RunOrder
from gridnode.runtimes.process import ProcessRuntime

NAME = "processes"

PROBE_ENDS_WITHIN_S = 30.0

_FIX = 'Use runtime = "docker", or Linux, where a process can be limited'


async def check_processes() -> list[Check]:
    cores = usable_cores()
    core = cores[-1] if cores else None
    return [
        ok(NAME, 'runtime = "process" does not isolate: a task can read what this user can'),
        judge_cpu_limit(await _run("cores", core), core),
        judge_memory_limit(await _run("memory", core)),
    ]


def judge_cpu_limit(ended: Ended | CannotStart | TimeoutError, core: int | None) -> Check:
    if isinstance(ended, Ended) and ended.exit_code == 0:
        return ok(CPU_LIMIT, f"a process that is pinned to core {core} can use one core")
    if core is None:
        return warning(CPU_LIMIT, "processes cannot be pinned on this system", fix=_FIX)
    return problem(CPU_LIMIT, f"pinning to core {core}: {_said(ended)}", fix=_FIX)


def judge_memory_limit(ended: Ended | CannotStart | TimeoutError) -> Check:
    if isinstance(ended, Ended) and ended.out_of_memory:
        return ok(MEMORY_LIMIT, f"a process cannot take more than its {probe.MEMORY_LIMIT_MB} MB")
    if isinstance(ended, Ended) and ended.exit_code == probe.LIMIT_MISSING:
        return warning(
            MEMORY_LIMIT,
            f"a process took {probe.TAKEN_MB} MB with a limit of {probe.MEMORY_LIMIT_MB} MB",
            fix=_FIX,
        )
    return problem(MEMORY_LIMIT, _said(ended), fix=_FIX)


async def _run(what: str, core: int | None) -> Ended | CannotStart | TimeoutError:
    name = f"gridcore-doctor-{secrets.token_hex(6)}"
    runtime = ProcessRuntime(node_id=name, memory_mb=probe.MEMORY_LIMIT_MB)
    order = RunOrder(
        name=name,
        task="doctor",
        slot=0,
        core=core,
        image=None,
        command=[sys.executable, "-I", "-S", str(Path(probe.__file__)), what],
        environment={},
    )
    try:
        run = await runtime.start(order)
    except CannotStart as error:
        return error
    try:
        async with asyncio.timeout(PROBE_ENDS_WITHIN_S):
            return await run.wait()
    except TimeoutError as error:
        return error
    finally:
        await run.remove()


def _said(ended: Ended | CannotStart | TimeoutError) -> str:
    if isinstance(ended, CannotStart):
        return ended.cause
    if isinstance(ended, TimeoutError):
        return f"the probe did not end within {PROBE_ENDS_WITHIN_S:.0f} s"
    lines = "; ".join(ended.log_lines) or "nothing"
    return f"the probe ended with exit code {ended.exit_code} and said: {lines}"
