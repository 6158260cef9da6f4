"""What workers say to the driver, and what follows from it."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from gridcore.sdk.context import id_of, worker_id_of
from gridcore.sdk.driver.core import Core
from gridcore.sdk.driver.records import Peer, Request, Watch
from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.options import ActorOptions, CallOptions
from gridcore.sdk.workers.frames import MAX_FDS, Message, packed_from
from gridcore.sdk.workers.scheduler import Call


class Inbox:
    """A handler for each kind of message; the kinds are listed here."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._exported: dict[bytes, Exported] = {}
        self._options: dict[bytes, Any] = {}
        self._handlers: dict[str, Callable[[Peer, Message, list[int]], None]] = {
            "hello": self._on_hello,
            "d": self._on_done,
            "b": self._on_given_back,
            "h": self._on_hold,
            "r": self._on_release,
            "f": self._on_function,
            "s": self._on_submit,
            "p": self._on_put,
            "g": self._on_get,
            "w": self._on_wait,
            "n": self._on_no_longer,
            "x": self._on_cancel,
            "y": self._on_value,
            "z": self._on_full,
            "i": self._on_next,
            "A": self._on_new_actor,
            "M": self._on_method,
            "q": self._on_find,
            "u": self._on_unpin,
            "k": self._on_kill,
            "N": self._on_state,
            "P": self._on_progress,
        }

    def on_message(self, process: Peer, message: Message, fds: list[int]) -> None:
        process.is_nudged = False
        self._handlers[message[0]](process, message, fds)

    def _on_hello(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        process.pid = message[1]
        core, actor = self._core, process.actor
        out = core.place.outgoing()
        worker = worker_id_of(core.name, process.number)
        out.messages.append(
            (
                "j", core.name, core.place.node_of(process), worker,
                id_of(core.name, -actor.number) if actor is not None else None,
                actor is not None and actor.was_restarted,
            )
        )  # fmt: skip
        core.place.send(process, out)
        if process.actor is None:
            self._core.place.came(process)
        else:
            self._core.actors.on_hello(process)

    def _on_done(self, process: Peer, message: Message, fds: list[int]) -> None:
        _, number, seconds, status, wires, refs = message
        results = [
            packed_from(wire, fds, refs[place] if refs else ()) for place, wire in enumerate(wires)
        ]
        if process.actor is not None:
            self._core.actors.on_done(process, number, status, results)
        else:
            self._core.place.on_done(process, number, seconds, status, results)

    def _on_given_back(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        self._core.place.on_given_back(process, message[1])

    def _on_hold(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        self._core.objects.hold(message[1])
        process.held.update(message[1])

    def _on_release(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        process.held.difference_update(message[1])
        self._core.objects.release(message[1])

    def _on_state(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        _, token, what = message
        place = self._core.place
        out = place.outgoing()
        found: Any = place.nodes() if what == "nodes" else None
        if found is None:
            found = place.resources(available=what == "available")
        out.messages.append(("o", token, found))
        place.send(process, out)

    def _on_progress(self, process: Peer, message: Message, fds: list[int]) -> None:
        del process, fds
        _, number, name, fraction, text = message
        self._core.note_of("progress", number, name, text, fraction)

    def _on_function(self, process: Peer, message: Message, fds: list[int]) -> None:
        del process, fds
        self._exported.setdefault(message[1], Exported(*message[1:]))

    def _exported_as(self, function: bytes) -> Exported:
        return self._exported[function]

    def _options_of(self, data: bytes) -> Any:
        found = self._options.get(data)
        if found is None:
            found = self._options[data] = pickle.loads(data)  # noqa: S301 - our worker's
        return found

    def _on_submit(self, process: Peer, message: Message, fds: list[int]) -> None:
        _, results, function, wire, refs, places, numbers, options = message
        process.held.update(results)
        arguments = Arguments(packed_from(wire, fds, refs), places, numbers)
        self._core.submit(
            self._exported_as(function),
            arguments,
            self._options_of(options),
            results,
            process.number,
        )

    def _on_put(self, process: Peer, message: Message, fds: list[int]) -> None:
        _, number, wire, refs = message
        process.held.add(number)
        self._core.put(number, packed_from(wire, fds, refs))

    def _on_get(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        _, token, numbers, is_main, is_for_calls = message
        self._request(
            process, token, numbers, len(numbers), is_main=is_main, is_for_calls=is_for_calls
        )

    def _on_wait(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        _, token, numbers, least, is_main, is_for_calls = message
        self._request(
            process,
            token,
            numbers,
            least,
            is_main=is_main,
            is_for_calls=is_for_calls,
            wants_values=False,
        )

    def _request(
        self,
        process: Peer,
        token: int,
        numbers: list[int],
        least: int,
        *,
        is_main: bool,
        is_for_calls: bool,
        wants_values: bool = True,
    ) -> None:
        watch = Watch(0)
        request = Request(token, numbers, watch, wants_values=wants_values)
        self._core.watch_for(numbers, least, watch)
        if watch.left <= 0:
            self._answer(process, request)
            return
        process.requests[token] = request
        watch.fire = lambda: self._answer(process, request)
        if process.actor is None:
            needed = self._needed(numbers) if is_for_calls else ()
            self._core.place.waits(process, token, needed, in_thread=not is_main)

    def _needed(self, numbers: Sequence[int]) -> list[Call]:
        """The calls behind these, and behind their arguments."""
        found: dict[int, Call] = {}
        open_numbers = deque(numbers)
        while open_numbers:
            entry = self._core.objects.find(open_numbers.popleft())
            call = entry.call if entry is not None else None
            if call is None or call.number in found or call.actor is not None:
                continue
            found[call.number] = call
            if call.missing > 0:
                open_numbers.extend(call.arguments.numbers)
        return list(found.values())

    def _answer(self, process: Peer, request: Request) -> None:
        is_known = process.requests.pop(request.token, None) is not None
        self._core.stop_watching(request.numbers, request.watch)
        if is_known and process.actor is None:
            self._core.place.goes_on(process, request.token)
        if not request.wants_values:
            over = [number for number in request.numbers if self._core.is_over(number)]
            out = self._core.place.outgoing()
            out.messages.append(("o", request.token, over))
            self._core.place.send(process, out)
            return
        for start in range(0, max(1, len(request.numbers)), MAX_FDS):
            out = self._core.place.outgoing()
            part = request.numbers[start : start + MAX_FDS]
            values = []
            for number in part:
                packed, is_error = self._core.outcome(number)
                values.append((out.wire(packed), is_error))
            is_last = start + MAX_FDS >= len(request.numbers)
            out.messages.append(("v", request.token, values, is_last))
            self._core.place.send(process, out)

    def _on_no_longer(self, process: Peer, message: Message, fds: list[int]) -> None:
        """An answer may have crossed with this."""
        del fds
        request = process.requests.pop(message[1], None)
        if request is None:
            return
        self._core.stop_watching(request.numbers, request.watch)
        if process.actor is None:
            self._core.place.goes_on(process, request.token)

    def _on_cancel(self, process: Peer, message: Message, fds: list[int]) -> None:
        del process, fds
        self._core.cancel(message[1], force=message[2])

    # Streams

    def _on_value(self, process: Peer, message: Message, fds: list[int]) -> None:
        _, number, index, wire, refs = message
        self._core.streams.on_value(process, number, index, packed_from(wire, fds, refs))

    def _on_full(self, process: Peer, message: Message, fds: list[int]) -> None:
        """It has yielded as much as it may."""
        del fds
        _, token, number, is_main, _ = message
        answer = self._waits(process, token, is_main=is_main)
        self._core.streams.when_room(number, answer)

    def _on_next(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        _, token, number, index, is_main, _ = message
        streams = self._core.streams
        if number not in streams.by_number:
            return  # who asks has given it up, and is not there any more
        answer = self._waits(process, token, is_main=is_main)
        stream = streams.ask(number, index)
        streams.when_there(stream, index, lambda: answer(stream.find(index)))

    def _waits(self, process: Peer, token: int, *, is_main: bool) -> Callable[..., None]:
        """What to call with the answer. Nothing runs on top of such a wait: a generator that ran
        there could itself wait, for what is below it."""
        process.requests[token] = Request(token, [], Watch(0), wants_values=False)
        place = self._core.place
        if process.actor is None:
            place.waits(process, token, (), in_thread=not is_main)

        def answer(*what: int | None) -> None:
            if process.requests.pop(token, None) is None:
                return  # it waits no longer
            if process.actor is None:
                place.goes_on(process, token)
            out = place.outgoing()
            out.messages.append(("o", token, *what))
            place.send(process, out)

        return answer

    # Actors

    def _on_new_actor(self, process: Peer, message: Message, fds: list[int]) -> None:
        _, token, number, function, wire, handle, refs, places, numbers, options = message
        core = self._core
        arguments = Arguments(packed_from(wire, fds, refs), places, numbers)
        chosen: ActorOptions = self._options_of(options)
        out = self._core.place.outgoing()
        try:
            made = core.actors.submit(
                number,
                self._exported_as(function),
                arguments,
                chosen,
                packed_from(handle, fds),
                process.number,
            )
            if made == number:
                process.held.add(number)
            else:
                process.pins.append(made)
            out.messages.append(("o", token, None, made))
        except ValueError as error:
            out.messages.append(("o", token, str(error), number))
        if chosen.name:
            core.place.send(process, out)

    def _on_method(self, process: Peer, message: Message, fds: list[int]) -> None:
        _, results, number, method, wire, refs, places, numbers, options = message
        process.held.update(results)
        arguments = Arguments(packed_from(wire, fds, refs), places, numbers)
        chosen: CallOptions = self._options_of(options)
        self._core.actors.call(number, method, arguments, chosen, results, process.number)

    def _on_find(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        out = self._core.place.outgoing()
        try:
            number, handle = self._core.actors.find(message[2])
            # Until the worker's own hold has come.
            process.pins.append(number)
            out.messages.append(("o", message[1], None, number, handle.data))
        except ValueError as error:
            out.messages.append(("o", message[1], str(error), 0, None))
        self._core.place.send(process, out)

    def _on_unpin(self, process: Peer, message: Message, fds: list[int]) -> None:
        del fds
        process.pins.remove(message[1])
        self._core.actors.change_handles(message[1], -1)

    def _on_kill(self, process: Peer, message: Message, fds: list[int]) -> None:
        del process, fds
        self._core.actors.kill(message[1], no_restart=message[2])
