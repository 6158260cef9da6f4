"""What a grid's containers run for the SDK: `python3 -m gridcore.sdk.grid.runner`.

A plain program of a task: it knows the URL that it was given and the two queues, and speaks Redis'
protocol to what it takes for Redis. It takes calls, has worker processes run them one at a time (a
container has one core), and tells each driver what came of its own.

It takes the next call when its core is free, which it also is while a call waits for others; and
short ones a few at a time. It ends when it is told to, by SIGTERM.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from gridcore.sdk.driver.pump import Poller
from gridcore.sdk.grid.fetched import memory_for_values
from gridcore.sdk.grid.keys import BEAT_S, KEPT_S, JobKeys
from gridcore.sdk.grid.letters import Command
from gridcore.sdk.grid.link import Link
from gridcore.sdk.grid.messages import Item, read_order
from gridcore.sdk.grid.resp import ReplyError
from gridcore.sdk.grid.share import Share, Worker
from gridcore.sdk.open_files import allow_as_many_as_possible
from gridcore.sdk.workers.crew import Template, WorkerProcess
from gridcore.sdk.workers.frames import Outgoing
from gridcore.sdk.workers.memory import KernelKills, oom_kills

UNUSED_S = 20.0
"""A share whose driver has asked nothing for so long is given up; it begins anew if need be."""

MISSING_S = 10.0
"""A driver may be missing for so long before it is taken for gone: when Redis comes back from a
long absence its sign of life has expired, and it needs a moment to give another one."""

ORDERS_AT_ONCE = 100
LISTEN_MS = 30_000

RETRY_S = 0.25


class Runner:
    """The run: its connections to the gateway, its timers, and its share for each driver."""

    def __init__(self, url: str, queue: str) -> None:
        self.node = os.environ.get("NODE_ID", "")
        self._name = f"{os.environ.get('INSTANCE_ID', 'run')}-{os.urandom(4).hex()}"
        self._url = url
        self._queue = queue
        self._poller = Poller()
        self._gate = self._connected()
        self._items = self._connected()
        self._template = Template()
        self._shares: dict[str, Share] = {}
        self._mail: dict[str, Link] = {}
        self._workers: dict[int, tuple[Share, Worker]] = {}
        self._asked = 0
        """For items, without an answer yet."""
        self._looks = 0
        """Whether drivers of items are there: nothing runs for one before that is known."""
        self._is_empty = False
        """The last answer was that there is none."""
        self._places = itertools.count(1)
        self._share_numbers = itertools.count(1)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._beat_at = time.monotonic()
        self._kernel_kills = KernelKills(oom_kills)

    def run(self) -> NoReturn:
        template = self._template
        self._poller.watch(template.socket.fileno(), lambda _: self._on_template())
        while True:
            now = time.monotonic()
            self._ask_for_items()
            for share in self._shares.values():
                share.flush()
            self._gate.flush()
            self._poller.handle(self._poller.wait(self._left(now)))
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            for share in list(self._shares.values()):
                share.tick(now)
            if now - self._beat_at >= BEAT_S:
                self._beat(now)

    def end(self) -> None:
        self._template.end()

    def _left(self, now: float) -> float:
        left = [self._beat_at + BEAT_S - now]
        if self._timers:
            left.append(self._timers[0][0] - now)
        for share in self._shares.values():
            wanted = share.next_time(now)
            if wanted is not None:
                left.append(wanted)
        return max(0.0, min(left))

    # Items

    def _ask_for_items(self) -> None:
        if self._asked or self._looks:
            return
        shares = self._shares.values()
        if not any(share.is_at_work for share in shares):
            if self._is_empty or not self._shares:
                self._ask("BLMOVE", 0)
            else:
                self._ask("LMOVE")
        elif not self._is_empty:
            # Only one share has the core, and only if its calls are short.
            for _ in range(max(share.room() for share in shares)):
                self._ask("LMOVE")
        self._items.flush()

    def _ask(self, command: str, *timeout: int) -> None:
        place = f"item-{next(self._places)}"
        self._asked += 1

        def came(reply: Any) -> None:
            self._asked -= 1
            if isinstance(reply, ReplyError):
                sys.exit(f"the gateway refuses to give items: {reply}")
            self._is_empty = reply is None
            if reply is not None:
                self._take(reply, place)

        self._items.send((command, self._queue, place, "RIGHT", "LEFT", *timeout), came)

    def _take(self, data: bytes, place: str) -> None:
        try:
            item = Item.decoded(data)
        except ValueError as error:
            print(f"dropped an item of the queue: {error}", file=sys.stderr)
            self.is_done(place)
            return
        share = self._shares.get(item.job)
        if share is not None:
            share.take(item, place)
            return
        self._looks += 1
        keys = JobKeys(self._queue, item.job)

        def looked(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                self.later(RETRY_S, look)
                return
            self._looks -= 1
            if reply:
                share = self._shares.get(item.job) or self._begin_share(item.job, keys)
                share.take(item, place)
            else:
                self.is_done(place)  # of a driver that is gone

        def look() -> None:
            self.send(("EXISTS", keys.alive), looked)

        look()

    def _begin_share(self, job: str, keys: JobKeys) -> Share:
        # To the driver each share is a run: letters and orders are numbered from 1 in each.
        name = f"{self._name}-{next(self._share_numbers)}"
        share = self._shares[job] = Share(job, name, keys, self)
        self._mail[job] = self._connected()
        self._listen(share, b"0-0")
        return share

    def _end_share(self, share: Share) -> None:
        share.end()
        self._drop(share)

    def give_up(self, share: Share) -> None:
        if self._shares.get(share.job) is share:
            share.begin_anew()
            self._drop(share)

    def _drop(self, share: Share) -> None:
        del self._shares[share.job]
        mail = self._mail.pop(share.job)
        self._poller.forget(mail.fileno())
        mail.close()

    # Orders

    def _listen(self, share: Share, last: bytes) -> None:
        mail = self._mail[share.job]

        def came(reply: Any) -> None:
            nonlocal last
            if isinstance(reply, ReplyError):
                self.later(RETRY_S, again)
                return
            for _, entries in reply or ():
                for entry, fields in entries:
                    share.on_order(*read_order(fields[1]))
                    last = entry
                self.send(("XTRIM", share.order_key, "MINID", last), _ignore)
            again()

        def again() -> None:
            if self._shares.get(share.job) is share:
                self._listen(share, last)

        mail.send(
            (
                "XREAD", "COUNT", ORDERS_AT_ONCE, "BLOCK", LISTEN_MS,
                "STREAMS", share.order_key, last,
            ),
            came,
        )  # fmt: skip
        mail.flush()

    # What shares need

    def send(self, command: Command, then: Callable[[Any], None]) -> None:
        self._gate.send(command, then)

    def now(self) -> float:
        return time.monotonic()

    def memory_for_values(self) -> int:
        return memory_for_values() // max(1, len(self._shares))

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        at = time.monotonic() + seconds
        heapq.heappush(self._timers, (at, next(self._timer_numbers), call))

    def fork(self, number: int) -> WorkerProcess:
        return self._template.fork(number)

    def started(self, share: Share, worker: Worker) -> None:
        number = worker.number
        self._workers[number] = (share, worker)
        self._poller.watch(
            worker.process.data.fileno(), lambda can_read: self._on_worker(number, can_read)
        )

    def kill(self, number: int) -> None:
        self._template.kill(number)

    def write(self, worker: Worker, out: Outgoing) -> None:
        try:
            if not worker.process.sender.send(out):
                self._poller.also_write(worker.process.data.fileno(), True)
        except OSError:
            pass  # it is gone; its calls are seen to when its end is heard of

    def is_done(self, place: str) -> None:
        self._gate.send(("DEL", place), _ignore)

    def give_back(self, place: str) -> None:
        self._gate.send(("LMOVE", place, self._queue, "LEFT", "RIGHT"), _ignore)

    # Workers

    def _on_worker(self, number: int, can_read: bool) -> None:
        share, worker = self._workers[number]
        process = worker.process
        if not can_read:
            try:
                is_all = process.sender.send_more()
            except OSError:
                is_all = True
            if is_all:
                self._poller.also_write(process.data.fileno(), False)
            return
        try:
            frames = process.incoming.receive()
        except (EOFError, OSError):
            # How it ended comes from the template; if it lives without a socket, it must not.
            self._poller.forget(process.data.fileno())
            self._template.kill(number)
            return
        for messages, fds in frames:
            share.on_frame(worker, messages, fds)

    def _on_template(self) -> None:
        try:
            frames = self._template.incoming.receive()
        except (EOFError, OSError):
            sys.exit("the process that workers are forked from is gone")
        for messages, _ in frames:
            for _, number, code in messages:
                self._on_exit(number, code)

    def _on_exit(self, number: int, code: int | None) -> None:
        found = self._workers.pop(number, None)
        if found is None:
            return
        share, worker = found
        # What it said before it ended.
        with contextlib.suppress(EOFError, OSError):
            while True:
                for messages, fds in worker.process.incoming.receive(socket.MSG_DONTWAIT):
                    share.on_frame(worker, messages, fds)
        self._poller.forget(worker.process.data.fileno())
        is_out_of_memory = worker.end is None and self._kernel_kills.explain(code)
        share.on_exit(number, code, is_out_of_memory=is_out_of_memory)

    # Time

    def _beat(self, now: float) -> None:
        self._beat_at = now
        for share in list(self._shares.values()):
            if share.is_idle and now - share.used_at > UNUSED_S:
                self._end_share(share)
                continue
            share.beat()
            self.send(("EXPIRE", share.order_key, KEPT_S), _ignore)
            self._look_whether_alive(share)

    def _look_whether_alive(self, share: Share) -> None:
        def answered(reply: Any) -> None:
            if self._shares.get(share.job) is not share:
                return
            if reply != 0:
                share.missing_since = None
            elif share.missing_since is None:
                share.missing_since = time.monotonic()
            elif time.monotonic() - share.missing_since >= MISSING_S:
                self._end_share(share)

        self.send(("EXISTS", share.keys.alive), answered)

    def _connected(self) -> Link:
        link = Link(self._url, wants_to_write=lambda on: self._poller.also_write(link.fileno(), on))
        link.connect()

        def ready(can_read: bool) -> None:
            if can_read:
                link.receive()
            link.flush()

        self._poller.watch(link.fileno(), ready)
        return link


def _ignore(reply: Any) -> None:
    del reply


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    allow_as_many_as_possible()
    runner = Runner(os.environ["INPUT_REDIS_URL"], os.environ["INPUT_QUEUE"])
    try:
        runner.run()
    except OSError as error:
        sys.exit(f"the gateway is gone: {error}")
    finally:
        runner.end()


if __name__ == "__main__":
    main()
