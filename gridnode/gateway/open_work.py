"""The transaction of one run: which items it has, which results it has pushed, what is done.

The rules of the promise (docs/delivery.md), without sockets or clocks:

    a delivery   the items of one reply. It is *open* until it is done, then *settled*: committed,
                 or returned to where it came from.
    done         its connection asks for the next items; or its connection is gone, the reply was
                 read, and the run asks for more; or the program says so (LREM from a list of its
                 own); or the run ends with exit code 0.
    a group      Nobody can tell which of the open items a pushed result belongs to. So a push ties
                 all that is open at that moment together: they are committed in one step with all
                 the group's results, when the last of them is done, or none of them is.

A program that works on one item at a time has groups of one, and commits at each pop. One with
several threads has a group that grows while they overlap; `is_overgrown` says when its pops have
to wait until all threads are done with what they have, so that the group can be committed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from gridcore.lease_queue.queue import Lease, Push, Side, Transaction

LARGEST_GROUP = 64
"""Deliveries that are done, and wait for others that are not: a crash repeats so many."""

Connection = Hashable


class Delivery:
    __slots__ = (
        "at_s",
        "connection",
        "in_group",
        "is_done",
        "is_interrupted",
        "is_overdue",
        "is_seen",
        "kept_in",
        "leases",
        "round",
        "side",
    )

    def __init__(
        self,
        connection: Connection,
        leases: Sequence[Lease],
        side: Side,
        heard: int,
        at_s: float,
        kept_in: bytes | None = None,
    ) -> None:
        self.connection: Connection | None = connection
        """None when it is gone, and the reply was read."""
        self.leases = leases
        self.side = side
        self.round = heard
        """How often the connection had been heard from when it got the reply. What it had sent
        by then (a pipeline) is no sign that it has read it."""
        self.at_s = at_s
        self.kept_in = kept_in
        """The list of the program's own to which it moved the item."""
        self.is_seen = False
        """There is evidence that the program has read the reply."""
        self.is_done = False
        self.in_group = False
        self.is_interrupted = False
        """Its connection was given up in the middle of a call, which the program may try again."""
        self.is_overdue = False
        """The program was at it for longer than the task allows."""


class OpenWork:
    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.held: list[Push] = []
        self.held_bytes = 0
        self.held_arguments = 0
        self._until_exit: list[Lease] = []
        self._has_put_by_a_suspect = False
        self._to_be_asked_again = 0
        """Pops whose answer nobody has read. Who asks again for that has finished nothing since."""

    # --- what happens

    def opened(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def heard_from(self, connection: Connection, heard: int) -> None:
        """Whoever sends another command has read the reply to the one before."""
        for delivery in self.deliveries:
            if delivery.connection is connection and delivery.round < heard:
                delivery.is_seen = True

    def pushed(self, pushes: Sequence[Push], by: Connection | None = None) -> bool:
        """False if nothing is open: then the results do not belong to any item."""
        if not self.is_busy:
            return False
        # Who works on an item of its own tells nothing of what other threads have read.
        has_own = by is not None and any(d.connection is by for d in self.deliveries)
        for delivery in self.deliveries:
            delivery.in_group = True
            if not has_own or delivery.connection is by:
                delivery.is_seen = True
        self._hold(pushes)
        return True

    def closed(self, connection: Connection, *, was_read: bool) -> list[Delivery]:
        """The connection is gone. What it carried unread was never delivered, and is returned."""
        undelivered: list[Delivery] = []
        kept = []
        for delivery in self.deliveries:
            if delivery.connection is connection:
                if not was_read and not delivery.is_seen:
                    undelivered.append(delivery)
                    continue
                delivery.connection = None
                delivery.is_seen = True
                delivery.is_interrupted = not was_read
            kept.append(delivery)
        self.deliveries = kept
        if undelivered:
            self.was_called_off()
        return undelivered

    def put_by(self) -> None:
        """What the program has seen is done at its end, and not before: there may be very much of
        it."""
        for delivery in self.deliveries:
            if delivery.is_seen:
                self._until_exit += delivery.leases
                self._has_put_by_a_suspect |= bool(delivery.leases[0].attempts)
        self.deliveries = [d for d in self.deliveries if not d.is_seen]

    def was_called_off(self) -> None:
        """A pop has not reached its answer, as its connection is gone."""
        self._to_be_asked_again += 1

    # --- what is done

    def asks_for_more(self, connection: Connection, heard: int) -> list[Transaction]:
        """The program is done with what that connection carried, and with what came on one that was
        closed in order.

        If one was given up in the middle of a call, the program may be about to try that again, in
        another thread than this: only who has nothing else in hand, and does not just ask again for
        what it was not given, can be the one that was interrupted, and goes on.
        """
        has_own = False
        without: list[Delivery] = []
        for delivery in self.deliveries:
            if delivery.connection is None:
                without.append(delivery)
            elif delivery.connection is connection and delivery.round < heard:
                has_own = has_own or not delivery.is_done
                delivery.is_done = delivery.is_seen = True
        asks_again = not has_own and self._to_be_asked_again > 0
        self._to_be_asked_again -= asks_again
        for delivery in without:
            if not delivery.is_interrupted or not (has_own or asks_again):
                delivery.is_done = True
        return self._settle()

    def is_done_with(
        self, done: Sequence[Delivery], results: Sequence[Push] = ()
    ) -> list[Transaction]:
        """The program has said so, together with the results of these items alone."""
        for delivery in done:
            delivery.is_done = delivery.is_seen = True
        if results and not any(delivery.in_group for delivery in done):
            for delivery in done:
                self.deliveries.remove(delivery)
            return [Transaction(_tokens(done), results)]
        if results:
            for delivery in done:
                # It must not be committed before them.
                delivery.in_group = True
            self._hold(results)
        return self._settle()

    def ended_well(self) -> tuple[list[Transaction], list[Lease]]:
        """Exit code 0: what to commit, and what the program has never seen."""
        done = self._until_exit + [i for d in self.deliveries if d.is_seen for i in d.leases]
        unseen = [lease for d in self.deliveries if not d.is_seen for lease in d.leases]
        ready = []
        if done or self.held:
            ready.append(Transaction([lease.token for lease in done], self.held))
        self._forget_all()
        return ready, unseen

    def ended_badly(self) -> tuple[list[Lease], list[Lease]]:
        """Its results are dropped. The items that it had in hand, and those that are not to blame:
        done with already, or never seen; and all others, if it was ended for one of them."""
        to_blame = [d for d in self.deliveries if d.is_overdue]
        failed = [lease for d in to_blame for lease in d.leases]
        if not to_blame:
            to_blame = [d for d in self.deliveries if d.is_seen and not d.is_done]
            failed = self._until_exit + [lease for d in to_blame for lease in d.leases]
        blamed = {lease.token for lease in failed}
        others = [i for i in self._leases() if i.token not in blamed]
        self._forget_all()
        return failed, others

    def give_up(self, delivery: Delivery) -> Sequence[Lease]:
        """The program has put an item back itself."""
        self.deliveries.remove(delivery)
        return delivery.leases

    # --- what is so

    @property
    def is_overgrown(self) -> bool:
        deliveries = self.deliveries
        return len(deliveries) >= LARGEST_GROUP and (
            sum(d.is_done for d in deliveries) >= LARGEST_GROUP
        )

    @property
    def is_busy(self) -> bool:
        """It has something in hand."""
        return bool(self.deliveries or self._until_exit)

    @property
    def has_suspect(self) -> bool:
        """An item that has failed before; it has come alone."""
        return self._has_put_by_a_suspect or any(d.leases[0].attempts for d in self.deliveries)

    @property
    def open_items(self) -> int:
        in_hand = sum(len(d.leases) for d in self.deliveries if not d.is_done)
        return len(self._until_exit) + in_hand

    def carries_from(self, connection: Connection, heard: int) -> bool:
        """A pipeline: another of its commands has got items."""
        return any(d.connection is connection and d.round == heard for d in self.deliveries)

    def has_unseen(self, connection: Connection) -> bool:
        """It carried something, and there is no evidence yet that it was read."""
        return any(d.connection is connection and not d.is_seen for d in self.deliveries)

    def oldest_open(self) -> Delivery | None:
        return next((d for d in self.deliveries if not d.is_done), None)

    def newest(self) -> Delivery | None:
        return self.deliveries[-1] if self.deliveries else None

    def kept_in(self, key: bytes) -> list[Delivery]:
        """What a program's own list holds, the first moved there first."""
        return [d for d in self.deliveries if d.kept_in == key and not d.is_done]

    def tokens(self) -> set[str]:
        return {lease.token for lease in self._leases()}

    def _leases(self) -> list[Lease]:
        return self._until_exit + [lease for d in self.deliveries for lease in d.leases]

    def _hold(self, pushes: Sequence[Push]) -> None:
        for push in pushes:
            self.held.append(push)
            self.held_bytes += size_of(push)
            self.held_arguments += 2 + len(push.values)

    def _settle(self) -> list[Transaction]:
        deliveries = self.deliveries
        if len(deliveries) == 1 and deliveries[0].is_done:
            # What nearly every program comes to: one delivery, and all results are its own.
            tokens = [lease.token for lease in deliveries[0].leases]
            ready = [Transaction(tokens, self.held)]
            self._all_is_committed([])
            return ready
        if not deliveries and not self.held:
            return []
        ready, kept = [], []
        for delivery in self.deliveries:
            if delivery.is_done and not delivery.in_group:
                ready.append(Transaction(_tokens([delivery]), ()))
            else:
                kept.append(delivery)
        group = [d for d in kept if d.in_group]
        if self.held and all(d.is_done for d in group):
            ready.append(Transaction(_tokens(group), self.held))
            self._all_is_committed([d for d in kept if not d.in_group])
        else:
            self.deliveries = kept
        return ready

    def _all_is_committed(self, kept: list[Delivery]) -> None:
        self.deliveries = kept
        self.held, self.held_bytes, self.held_arguments = [], 0, 0
        # Nobody whose work was interrupted is left who could be mistaken for another.
        self._to_be_asked_again = 0

    def _forget_all(self) -> None:
        self._until_exit = []
        self._has_put_by_a_suspect = False
        self._all_is_committed([])


def size_of(push: Push) -> int:
    """About what it takes to keep it: small results are more than their bytes."""
    size = 160
    for value in push.values:
        size += 48 + len(value)
    return size


def _tokens(deliveries: Sequence[Delivery]) -> list[str]:
    return [lease.token for delivery in deliveries for lease in delivery.leases]
