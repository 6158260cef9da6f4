"""A container really is held to one core and to its memory.

`inspect` shows what was asked for, not what the kernel does: only a program inside can tell. It
runs in an image made of this machine's own Python, so that no registry is needed. The image stays
for the next time, marked by a label; the containers go.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import platform
import secrets
import sys
from contextlib import aclosing, suppress
from dataclasses import dataclass

from gridcore.errors import GridCoreError
from gridcore.platforms import platform_of
from gridnode.cores import usable_cores
from gridnode.doctor import probe
from gridnode.doctor.check import Check, ok, problem, skipped
from gridnode.doctor.engine import FoundEngine, how_to_enable_limits, is_raspberry_pi
from gridnode.python_image import PythonImageError, build_python_image
from gridnode.runtimes.docker_engine import ContainerSpec, ContainerState, Engine

CPU_LIMIT = "cpu_limit"
MEMORY_LIMIT = "memory_limit"

LABEL = "io.gridcore.probe"
"""On the image, and so on its containers."""

RUN_LABEL = "io.gridcore.probe.run"

IMAGE_IS_READY_WITHIN_S = 180.0
"""Making it takes a second; writing 50 MB to a poor SD card, a minute."""

PROBE_ENDS_WITHIN_S = 60.0

REMOVED_WITHIN_S = 15.0

_PATH_IN_IMAGE = "/probe.py"
_NO_END = f"the container did not end within {PROBE_ENDS_WITHIN_S:.0f} s"

_KILLED = 137
"""128 + SIGKILL: how the kernel enforces a memory limit."""

_ENGINE_FIX = (
    "Try 'docker run --rm hello-world', and look at the engine's log ('sudo journalctl -u docker')"
)


@dataclass(frozen=True)
class ProbeEnded:
    state: ContainerState
    lines: list[str]


async def check_limits(found: FoundEngine) -> list[Check]:
    """On cores and on memory; what the engine says that it lacks is not tried."""
    if reason := _why_not_probed(found):
        return [skipped(CPU_LIMIT, reason), skipped(MEMORY_LIMIT, reason)]
    async with aclosing(Engine(found.address)) as engine:
        try:
            async with asyncio.timeout(IMAGE_IS_READY_WITHIN_S):
                await engine.connect()
                image = await probe_image(engine)
        except PythonImageError as error:
            reason = f"{error.tried}: {error.cause}"
            return [skipped(CPU_LIMIT, reason), skipped(MEMORY_LIMIT, reason)]
        except (GridCoreError, TimeoutError) as error:
            said = _said(error, f"no image within {IMAGE_IS_READY_WITHIN_S:.0f} s")
            return [
                problem(CPU_LIMIT, said, fix=_ENGINE_FIX),
                skipped(MEMORY_LIMIT, "there is no image to try it with"),
            ]
        return [
            await _check_cpu_limit(engine, image, found),
            await _check_memory_limit(engine, image, found),
        ]


async def _check_cpu_limit(engine: Engine, image: str, found: FoundEngine) -> Check:
    if not found.info.can_pin:
        return skipped(CPU_LIMIT, "the engine says that it cannot pin")
    core = (usable_cores() or [0])[-1]
    try:
        ended = await run_probe(engine, probe_spec(image, "cores", core=core))
    except (GridCoreError, TimeoutError) as error:
        return problem(CPU_LIMIT, _said(error, _NO_END), fix=_ENGINE_FIX)
    return judge_cpu_limit(ended, core, fix=_fix(found))


async def _check_memory_limit(engine: Engine, image: str, found: FoundEngine) -> Check:
    if not found.info.can_limit_memory:
        return skipped(MEMORY_LIMIT, "the engine says that it cannot limit memory")
    memory_bytes = probe.MEMORY_LIMIT_MB * 1024 * 1024
    try:
        ended = await run_probe(engine, probe_spec(image, "memory", memory_bytes=memory_bytes))
    except (GridCoreError, TimeoutError) as error:
        return problem(MEMORY_LIMIT, _said(error, _NO_END), fix=_ENGINE_FIX)
    return judge_memory_limit(ended, fix=_fix(found))


def judge_cpu_limit(ended: ProbeEnded, core: int, *, fix: str) -> Check:
    if ended.state.exit_code == 0:
        return ok(CPU_LIMIT, f"a container that is pinned to core {core} can use that one only")
    if ended.state.exit_code == probe.LIMIT_MISSING:
        can_use = " ".join(ended.lines)
        return problem(
            CPU_LIMIT, f"a container that was pinned to one core can use {can_use}", fix=fix
        )
    return problem(CPU_LIMIT, _unexpected(ended), fix=_ENGINE_FIX)


def judge_memory_limit(ended: ProbeEnded, *, fix: str) -> Check:
    if ended.state.out_of_memory or ended.state.exit_code == _KILLED:
        return ok(
            MEMORY_LIMIT,
            f"a container that takes more than its {probe.MEMORY_LIMIT_MB} MB is ended",
        )
    if ended.state.exit_code == probe.LIMIT_MISSING:
        return problem(
            MEMORY_LIMIT,
            f"a container took {probe.TAKEN_MB} MB with a limit of {probe.MEMORY_LIMIT_MB} MB",
            fix=fix,
        )
    return problem(MEMORY_LIMIT, _unexpected(ended), fix=_ENGINE_FIX)


def _why_not_probed(found: FoundEngine) -> str | None:
    if not found.is_local or platform_of(found.info.architecture) != platform_of(
        platform.machine()
    ):
        return f"{found} does not run this machine's programs"
    return None


async def probe_image(engine: Engine) -> str:
    """The image's name; a Python that has changed gets another image."""
    program = inspect.getsource(probe).encode()
    made_of = hashlib.sha256(f"{sys.version} {sys.executable}".encode() + program).hexdigest()
    tag = f"gridcore-probe:{made_of[:12]}"
    if await engine.image(tag) is None:
        await build_python_image(
            engine,
            tag,
            command=["python", _PATH_IN_IMAGE],
            files={_PATH_IN_IMAGE: program},
            labels={LABEL: "1"},
        )
    return tag


def probe_spec(
    image: str, what: str, *, core: int | None = None, memory_bytes: int | None = None
) -> ContainerSpec:
    run = secrets.token_hex(6)
    return ContainerSpec(
        name=f"gridcore-probe-{run}",
        image=image,
        command=["python", "-I", _PATH_IN_IMAGE, what],
        environment={},
        labels={RUN_LABEL: run},
        core=core,
        memory_bytes=memory_bytes,
        pids=None,
        network="none",
    )


async def run_probe(engine: Engine, spec: ContainerSpec) -> ProbeEnded:
    """Raises what the engine raises, and TimeoutError. The container is gone afterwards."""
    async with asyncio.timeout(PROBE_ENDS_WITHIN_S):
        exits = await engine.exits(spec.labels)
        try:
            container = await engine.create(spec)
            await engine.start(container)
            async for _ in exits:
                break
            state = await engine.inspect(container)
            return ProbeEnded(state, await engine.last_lines(container, 1))
        finally:
            exits.close()
            await asyncio.shield(_remove(engine, spec.name))


async def _remove(engine: Engine, container: str) -> None:
    with suppress(GridCoreError, TimeoutError):
        async with asyncio.timeout(REMOVED_WITHIN_S):
            await engine.remove(container)


def _fix(found: FoundEngine) -> str:
    return how_to_enable_limits(is_rootless=found.is_rootless, is_raspberry_pi=is_raspberry_pi())


def _said(error: GridCoreError | TimeoutError, no_answer: str) -> str:
    return f"{error.tried}: {error.cause}" if isinstance(error, GridCoreError) else no_answer


def _unexpected(ended: ProbeEnded) -> str:
    said = "; ".join([*ended.lines, *filter(None, [ended.state.error])]) or "nothing"
    return f"the probe ended with exit code {ended.state.exit_code} and said: {said}"
