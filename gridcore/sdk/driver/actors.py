"""Actors: a process each, calls in the order of each caller, and what follows when one dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gridcore.sdk.driver.records import DRIVER, Actor, CallRecord, Peer
from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.errors import (
    ActorDied,
    ActorUnavailable,
    GridError,
    TaskCancelled,
    TaskError,
    Unschedulable,
)
from gridcore.sdk.options import STREAMING, ActorOptions, CallOptions
from gridcore.sdk.outcomes import DONE, STOPPED
from gridcore.sdk.packing import Packed, unpack
from gridcore.sdk.workers.frames import MAX_FDS
from gridcore.sdk.workers.scheduler import Need

if TYPE_CHECKING:
    from gridcore.sdk.driver.core import Core

MOST_SENT = 1000
"""Calls that an actor's process has and has not answered; the others wait here."""

_NO_NEED = Need(0.0, 0, ())


class Actors:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._actors: dict[int, Actor] = {}
        self._names: dict[str, Actor] = {}
        self._busy: dict[int, Actor] = {}
        """Those with calls that are sent and not answered."""

    # What callers ask

    def submit(
        self,
        number: int,
        made_by: Exported,
        arguments: Arguments,
        options: ActorOptions,
        handle: Packed,
        caller: int = DRIVER,
    ) -> int:
        """Its number, or that of the one that has its name already, held once more."""
        if options.name in self._names:
            if options.get_if_exists:
                other = self._names[options.name]
                other.handles += 1
                return other.number
            raise ValueError(
                f"There is an actor {options.name!r} already: take another name, use"
                " gridcore.get_actor, or pass get_if_exists=True"
            )
        core = self._core
        need = Need(options.num_cpus, options.memory, options.resources)
        actor = self._actors[number] = Actor(number, options, handle, need)
        if options.name:
            self._names[options.name] = actor
        call = CallRecord(
            core.new_numbers(1)[0],
            made_by,
            _NO_NEED,
            arguments,
            (),
            name=made_by.name,
            retries=0,
            actor=actor,
            caller=caller,
        )
        actor.created_by = call
        core.expect(call)
        core.place.reserve(need)
        lack = core.place.lack(need)
        if lack is not None:
            why = Unschedulable(
                f"Creating {made_by.name}",
                cause=lack,
                next_step=core.place.how_to_get_more,
            )
            self._die(actor, why)
        else:
            self.send_calls(actor)
        return number

    def call(
        self,
        number: int,
        method: str,
        arguments: Arguments,
        options: CallOptions,
        results: tuple[int, ...],
        caller: int = DRIVER,
    ) -> None:
        core = self._core
        actor = self._actors.get(number)
        retries = options.max_task_retries
        if retries is None:
            retries = actor.options.max_task_retries if actor is not None else 0
        made_by = actor.created_by if actor is not None else None
        name = f"{made_by.exported.name}.{method}" if made_by is not None else method
        call = CallRecord(
            results[0] if results else core.new_numbers(1)[0],
            _NO_FUNCTION,
            _NO_NEED,
            arguments,
            results,
            name=options.name or name,
            given_name=options.name,
            retries=retries,
            timeout=options.timeout,
            actor=actor,
            method=method,
            caller=caller,
        )
        if options.num_returns == STREAMING:
            core.streams.open(call)
        core.expect(call)
        if actor is None or actor.death is not None:
            core.fail(call, self._died(actor, call.name))
            return
        actor.open_calls += 1
        line = actor.lines.get(caller)
        if line is None:
            line = actor.lines[caller] = deque()
        line.append(call)
        if actor.is_alive:
            self._send_line(actor, line)

    def find(self, name: str) -> tuple[int, Packed]:
        """Held once more."""
        actor = self._names.get(name)
        if actor is None:
            known = ", ".join(sorted(self._names)) or "none"
            raise ValueError(f"There is no actor {name!r}. With names there are: {known}")
        actor.handles += 1
        return actor.number, actor.handle

    def kill(self, number: int, *, no_restart: bool) -> None:
        actor = self._actors.get(number)
        if actor is None or actor.death is not None:
            return
        why = "gridcore.kill was called"
        if no_restart:
            lost, actor.sent = list(actor.sent.values()), {}
            self._busy.pop(number, None)
            self._die(actor, why, lost)
        if actor.process is not None:
            self._core.end_peer(actor.process, why)

    def change_handles(self, number: int, change: int) -> None:
        actor = self._actors.get(number)
        if actor is not None:
            actor.handles += change
            if actor.handles <= 0 and actor.death is not None:
                del self._actors[number]
            self._end_if_unneeded(actor)

    # Calls

    def send_calls(self, actor: Actor) -> None:
        """What can be sent now is."""
        created_by = actor.created_by
        if actor.process is None and actor.death is None and created_by is not None:
            if created_by.missing == 0:
                error = self._core.failed_argument(created_by)
                if error is not None:
                    # A large one may have to be fetched, and whoever holds the lock cannot wait.
                    is_here = error.blob is None
                    self._die(actor, unpack(error) if is_here else _LARGE_ERROR)
                else:
                    actor.process = self._core.place.start(actor)
            return
        if actor.is_alive:
            for line in list(actor.lines.values()):
                self._send_line(actor, line)

    def _send_line(self, actor: Actor, line: deque[CallRecord]) -> None:
        core, process = self._core, actor.process
        assert process is not None
        out = core.place.outgoing()
        while line and line[0].missing == 0 and len(actor.sent) < MOST_SENT:
            call = line.popleft()
            arguments = call.arguments
            if arguments.numbers:
                error = core.failed_argument(call)
                if error is not None:
                    self._over(actor, call)
                    core.settle(call, [error] * len(call.results), is_error=True)
                    continue
                if len(out.fds) + len(arguments.numbers) + 1 > MAX_FDS:
                    core.place.send(process, out)
                    out = core.place.outgoing()
            values = core.values_of(arguments, out) if arguments.numbers else ()
            out.messages.append(
                (
                    "m", call.number, call.method, out.wire(arguments.packed), arguments.places,
                    values, call.returns, call.about,
                )
            )  # fmt: skip
            actor.sent[call.number] = call
            core.expect_end(call)
            if len(out.fds) >= MAX_FDS:
                core.place.send(process, out)
                out = core.place.outgoing()
        if out.messages:
            self._busy[actor.number] = actor
            core.place.send(process, out)

    def where_sent(self, call: CallRecord) -> Peer | None:
        actor = call.actor
        if actor is None or call.number not in actor.sent:
            return None
        return actor.process

    def forget(self, call: CallRecord) -> None:
        """A call that was not sent is not to be."""
        actor = call.actor
        if actor is None:
            return
        line = actor.lines.get(call.caller)
        if line is not None and call in line:
            line.remove(call)
            self._over(actor, call)

    def _over(self, actor: Actor, call: CallRecord) -> None:
        actor.open_calls -= 1
        line = actor.lines.get(call.caller)
        if line is not None and not line and call.caller != DRIVER:
            del actor.lines[call.caller]
        self._end_if_unneeded(actor)

    def _end_if_unneeded(self, actor: Actor) -> None:
        if actor.handles > 0 or actor.open_calls > 0 or actor.death is not None:
            return
        process = actor.process
        if process is None:
            self._die(actor, "no handle to it is left")
            return
        if actor.is_alive:
            actor.restarts = 0
            self._die(actor, "no handle to it is left")
            self._core.place.dismiss(process)

    def nudge(self) -> bool:
        found = False
        for actor in self._busy.values():
            process = actor.process
            if process is not None and not process.is_nudged and len(actor.sent) > 1:
                process.is_nudged = True
                self._core.place.tell(process, ("b",))
                found = True
        return found

    def can_stall(self) -> bool:
        return any(
            len(actor.sent) > 1 and actor.process is not None and not actor.process.is_nudged
            for actor in self._busy.values()
        )

    # What processes say

    def on_hello(self, process: Peer) -> None:
        actor, core = process.actor, self._core
        assert actor is not None
        call = actor.created_by
        assert call is not None
        if actor.death is not None:
            return
        out = core.place.outgoing()
        core.add_function(process, call.exported, out)
        values = core.values_of(call.arguments, out)
        out.messages.append(
            (
                "a", call.number, call.function, out.wire(call.arguments.packed),
                call.arguments.places, values, actor.options.max_concurrency,
            )
        )  # fmt: skip
        core.place.send(process, out)

    def fail_start(self, process: Peer, error: GridError) -> None:
        """It will not come, nor would another one."""
        actor = process.actor
        assert actor is not None
        if actor.process is process:
            actor.process = None
            actor.restarts = 0
            self._die(actor, error)

    def on_done(self, process: Peer, number: int, status: int, results: list[Packed]) -> None:
        actor, core = process.actor, self._core
        assert actor is not None
        assert actor.created_by is not None
        if actor.death is not None and number not in actor.sent:
            return
        if number == actor.created_by.number:
            if status == DONE:
                actor.is_alive = True
                core.note_of("actor_started", -actor.number, actor.created_by.name)
                self.send_calls(actor)
                self._end_if_unneeded(actor)
            else:
                actor.restarts = 0
                error = unpack(results[0]) if results else TaskCancelled.of("the constructor")
                self._die(actor, error)
                core.place.dismiss(process)
            return
        call = actor.sent.pop(number, None)
        if call is None:
            return
        if not actor.sent:
            self._busy.pop(actor.number, None)
        if call.ends_as is not None and not (call.is_late and status == DONE):
            core.settle(call, [call.ends_as] * len(call.results), is_error=True)
        elif status == STOPPED:
            core.fail(call, TaskCancelled.of(call.name))
        else:
            if status != DONE:
                results = results * len(call.results)
            core.settle(call, results, is_error=status != DONE)
        if len(actor.sent) == MOST_SENT // 2:
            self.send_calls(actor)
        self._over(actor, call)

    def on_exit(self, process: Peer, how: str) -> None:
        actor = process.actor
        assert actor is not None
        if actor.process is not process:
            return
        actor.process = None
        self._busy.pop(actor.number, None)
        why = f"its process {process.pid} {how}"
        lost, actor.sent = list(actor.sent.values()), {}
        actor.is_alive = False
        if actor.death is not None:
            self._core.place.unreserve(actor.need)
            self._fail_all(actor, lost)
            return
        if actor.restarts == 0:
            actor.has_lost_its_process = True
            self._die(actor, why, lost)
            return
        if actor.restarts > 0:
            actor.restarts -= 1
        actor.was_restarted = True
        self._repeat_or_fail(actor, lost, why)
        self.send_calls(actor)

    def _repeat_or_fail(self, actor: Actor, lost: list[CallRecord], why: str) -> None:
        repeated: dict[int, list[CallRecord]] = {}
        for call in lost:
            if call.ends_as is not None:
                self._over(actor, call)
                self._core.settle(call, [call.ends_as] * len(call.results), is_error=True)
            elif call.may_repeat():
                self._core.note("retried", call, why)
                repeated.setdefault(call.caller, []).append(call)
            else:
                self._over(actor, call)
                self._core.fail(
                    call,
                    ActorUnavailable(
                        f"Calling {call.name}",
                        cause=f"{why}, and this call may have run",
                        next_step="The actor is started again; with max_task_retries calls are"
                        " repeated",
                    ),
                )
        for caller, calls in repeated.items():
            actor.lines.setdefault(caller, deque()).extendleft(reversed(calls))

    def _die(self, actor: Actor, why: str | GridError, lost: Sequence[CallRecord] = ()) -> None:
        """For good."""
        actor.death = why if isinstance(why, str) else _reason(why)
        actor.is_alive = False
        if self._names.get(actor.options.name) is actor:
            del self._names[actor.options.name]
        call = actor.created_by
        if call is not None:
            self._core.note_of("actor_died", -actor.number, call.name, actor.death)
            self._core.settle(call, [], is_error=True)
        self._fail_all(actor, lost, cause=why if isinstance(why, GridError) else None)
        if actor.process is None:
            self._core.place.unreserve(actor.need)
        if actor.handles <= 0:
            self._actors.pop(actor.number, None)

    def _fail_all(
        self, actor: Actor, lost: Sequence[CallRecord], cause: GridError | None = None
    ) -> None:
        waiting = [call for line in actor.lines.values() for call in line]
        actor.lines.clear()
        for call in [*lost, *waiting]:
            actor.open_calls -= 1
            if call.ends_as is not None:
                self._core.settle(call, [call.ends_as] * len(call.results), is_error=True)
                continue
            error = self._died(actor, call.name)
            error.__cause__ = cause
            self._core.fail(call, error)

    def _died(self, actor: Actor | None, name: str) -> ActorDied:
        why = actor.death if actor is not None else "no handle to it was left"
        next_step = "Create it anew"
        if actor is not None and actor.has_lost_its_process:
            most = actor.options.max_restarts
            if most:
                next_step += f": its max_restarts={most} are used up"
            else:
                next_step += "; with max_restarts that happens by itself"
        return ActorDied(f"Calling {name}", cause=f"the actor is dead: {why}", next_step=next_step)


_LARGE_ERROR = "an argument of its constructor is a call that failed: gridcore.get says how"

_NO_FUNCTION = Exported(b"", b"", "")


def _reason(error: GridError) -> str:
    if isinstance(error, TaskError):
        return f"its constructor failed: {error.tried}\n{error.remote_traceback}"
    return str(error)
