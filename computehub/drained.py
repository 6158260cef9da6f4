"""Is the running task done? (no I/O)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from computehub.census import Ledger
from computehub.producers import NONE, Producers
from computehub.task_list import Current
from gridcore.wire import NodeView, QueueLengths

Verdict = Literal["wait", "has_work", "drained"]


class DrainWatch:
    """Sees the running task a tick after the other, and judges when it is done.

    Done is said when two looks in a row agree. Places are counted one after the other while items
    move, so one look may miss an item; but every move of an item counts in its queue's counters.
    If those are the same a tick later nothing had moved meanwhile, and the first look was right.

    Nor is a task done while a producer says that it will push more. That one was there counts as
    work: one that comes and goes without having pushed anything must not keep the task for ever.
    """

    def __init__(self) -> None:
        self._seen_empty: tuple[str, tuple[int, ...]] | None = None
        self._first_version = ""
        self._first_taken = 0

    def see(
        self,
        current: Current,
        look: Ledger | QueueLengths | None,
        nodes: Sequence[NodeView],
        *,
        producers: Producers | None = NONE,
        age_s: float = 0.0,
    ) -> Verdict:
        """What a look shows: lengths with direct delivery, a ledger with leases, or nothing; and
        who will push more. `age_s` is for how long there has been this task."""
        if look is None or producers is None:
            self._seen_empty = None
            return "wait"
        if not current.has_had_work and (
            self._has_work(current, look, nodes) or producers.spoke_for(age_s)
        ):
            return "has_work"
        is_open = producers.will_push or not is_empty(current, look, nodes)
        if not current.has_had_work or is_open:
            self._seen_empty = None
            return "wait"
        evidence = (current.version, look.moves if isinstance(look, Ledger) else ())
        if self._seen_empty != evidence:
            self._seen_empty = evidence
            return "wait"
        return "drained"

    def _has_work(
        self, current: Current, look: Ledger | QueueLengths, nodes: Sequence[NodeView]
    ) -> bool:
        if not isinstance(look, Ledger):
            return bool(look.input) or _in_flight(current, nodes) > 0
        # A fast fleet may do all there is between two looks. The counters are the queue's, and
        # an earlier task may have counted there: only what they have grown by counts. What was
        # done before the first look is in the reports of nodes that act on this very version.
        if current.version != self._first_version:
            self._first_version, self._first_taken = current.version, look.taken
        return (
            not is_empty(current, look, nodes)
            or look.taken > self._first_taken
            or any(n.work and n.work.taken for n in nodes if n.task_version == current.version)
        )


def is_empty(current: Current, look: Ledger | QueueLengths, nodes: Sequence[NodeView]) -> bool:
    """Nothing waits, and nothing is in flight.

    With leases Redis knows what is in flight, and a run that waits for items says nothing. Without
    them a node has reported a run before it started it, so an item that has left the queue is with
    a node that reports one, or done. What a lost node still does is not waited for.
    """
    if isinstance(look, Ledger):
        without_gateway = [node for node in nodes if node.work is None]
        return look.waiting == look.retrying == look.leased == 0 and not _in_flight(
            current, without_gateway
        )
    return look.input == 0 and _in_flight(current, nodes) == 0


def _in_flight(current: Current, nodes: Sequence[NodeView]) -> int:
    name = current.task.name if current.task else None
    # An agent that does not say what it works on can only be working on what runs.
    return sum(
        node.active_containers
        for node in nodes
        if node.status == "Online" and node.task in (name, None)
    )
