"""The seam between the driver's state and where calls run: this machine, or a grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from gridcore.sdk.context import Node
from gridcore.sdk.driver.records import Actor, CallRecord, Peer
from gridcore.sdk.packing import Packed
from gridcore.sdk.workers.frames import Message, Outgoing
from gridcore.sdk.workers.scheduler import Call, Need


class Place(Protocol):
    how_to_get_more: str
    """What a message advises to who asks for more than there is."""

    # Calls of functions

    def lack(self, need: Need) -> str | None:
        """None, or what there will never be enough of."""
        ...

    def add(self, call: CallRecord, *, first: bool = False) -> None:
        """It may run. It comes back with `Core.over` or `Core.lost`."""
        ...

    def drop(self, call: CallRecord) -> bool:
        """It is not to run. False if that is not certain yet: then it comes back as always."""
        ...

    def where(self, call: CallRecord) -> Peer | None:
        """Who runs it, as far as is known here."""
        ...

    def give_out(self) -> None:
        """What may run is sent to where it can."""
        ...

    # Workers

    def start(self, actor: Actor) -> Peer: ...

    def end(self, peer: Peer) -> None:
        """At once."""
        ...

    def dismiss(self, peer: Peer) -> None:
        """It ends when it has done what it was sent."""
        ...

    def tell(self, peer: Peer, message: Message) -> None:
        """Heard even while it runs a call."""
        ...

    def outgoing(self) -> Outgoing: ...

    def send(self, peer: Peer, out: Outgoing) -> None: ...

    # What they say

    def came(self, peer: Peer) -> None: ...

    def on_done(
        self, peer: Peer, number: int, seconds: float, status: int, results: list[Packed]
    ) -> None: ...

    def on_given_back(self, peer: Peer, numbers: Sequence[int]) -> None: ...

    def waits(self, peer: Peer, token: int, for_calls: Iterable[Call], *, in_thread: bool) -> None:
        """Its call waits, itself or in a thread, and takes no core."""
        ...

    def goes_on(self, peer: Peer, token: int) -> None: ...

    # What there is

    def node_of(self, peer: Peer | None) -> str:
        """The id of the node of a worker, or of the driver itself."""
        ...

    def nodes(self) -> list[Node]: ...

    def resources(self, *, available: bool) -> dict[str, float]: ...

    # What actors keep to themselves

    def reserve(self, need: Need) -> None: ...

    def unreserve(self, need: Need) -> None: ...

    def shutdown(self) -> None: ...
