"""An actor whose item may be there twice, and one whose item has come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gridcore.sdk.driver.core import Core
from gridcore.sdk.driver.inbox import Inbox
from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.grid.messages import Item, Part, letter, read_order
from gridcore.sdk.grid.place import GridPlace
from gridcore.sdk.grid.values import StoredBlob
from gridcore.sdk.options import ActorOptions
from gridcore.sdk.packing import Packed, pack


class FakeStore:
    def __init__(self) -> None:
        self.pushed: list[Item] = []
        self.ordered: list[tuple[str, int, Any]] = []
        """To whom: a run and its worker; and what."""

    def push(self, items: Sequence[bytes], *, first: bool = False) -> None:
        del first
        self.pushed += [Item.decoded(item) for item in items]

    def order(self, run: str, data: bytes, then: Callable[[], None]) -> None:
        for part in read_order(data)[1]:
            self.ordered += [(run, part.worker, message[0]) for message in part.messages]
        then()

    def take_back(self, item: bytes, then: Callable[[], None]) -> None: ...
    def put_function(self, exported: Exported) -> None: ...
    def close(self) -> None: ...


class Driver:
    def __init__(self) -> None:
        self.store = FakeStore()
        self.core = Core("job", self._make_place, lambda _: None)
        self.inbox = Inbox(self.core)
        self._letters: dict[str, int] = {}

    def _make_place(self, core: Core) -> GridPlace:
        def stored(ticket: tuple[str, int]) -> StoredBlob:
            raise AssertionError(f"no large value is spoken of: {ticket}")

        self.place = GridPlace(
            core,
            self.store,
            "job",
            now=lambda: 0.0,
            stored=stored,
            on_message=lambda *what: self.inbox.on_message(*what),
        )
        return self.place

    def start_actor(self) -> Item:
        number = -self.core.new_numbers(1)[0]
        arguments = Arguments(pack(((), {}), "no arguments"), (), ())
        made_by = Exported(b"id", b"data", "Counter")
        self.core.actors.submit(number, made_by, arguments, ActorOptions(), Packed(b"", None))
        return self.store.pushed[-1]

    def hear(self, run: str, worker: int, *message: Any) -> None:
        number = self._letters[run] = self._letters.get(run, 0) + 1
        self.place.on_letter(letter(run, number, [Part(worker, [message], []).encoded()]))
        self.place.give_out()


def test_an_actor_whose_item_was_perhaps_sent_twice_is_not_lost() -> None:
    driver = Driver()
    item = driver.start_actor()
    driver.place.may_come_twice()
    driver.hear("run-a", 1, "hello", item.number, 100, "n1")
    driver.hear("run-b", 2, "hello", item.number, 200, "n1")
    assert driver.store.ordered[-1] == ("run-b", 2, "end")
    assert driver.core.open_calls == 1


def test_an_actor_whose_item_came_back_is_lost_where_it_was() -> None:
    driver = Driver()
    item = driver.start_actor()
    driver.hear("run-a", 1, "hello", item.number, 100, "n1")
    driver.hear("run-b", 2, "hello", item.number, 200, "n1")
    assert driver.store.ordered[-1] == ("run-b", 2, "end"), "it is not to be restarted"
    assert driver.core.open_calls == 0
