"""Pushes that a client sends again since it has not read the reply to the first: they count once.

Most clients try a command again when their connection breaks or is silent for too long. A push that
Redis has carried out is then in the list twice; here it is told from one that is meant.

No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gridnode.gateway.conversation import Conversation
from gridnode.gateway.resp import Command


@dataclass(eq=False, slots=True)
class _Last:
    """What one connection has pushed with the last bytes that came from it."""

    heard: int
    commands: list[Command]


@dataclass(eq=False)
class Stray:
    """A push that belongs to no item, and is not in Redis yet."""

    asker: Conversation
    """Who is answered: the last one that has sent it."""
    command: Command


class RepeatedPushes:
    def __init__(self) -> None:
        self._last: dict[Conversation, _Last] = {}
        self._unread: list[Command] = []
        """They are carried out, but their connection was given up before the reply was read: the
        program may send them again."""
        self._strays: list[Stray] = []

    # --- what happens

    def pushed(self, conversation: Conversation, command: Command, heard: int) -> None:
        last = self._last.get(conversation)
        if last and last.heard == heard:
            last.commands.append(command)
        else:
            self._last[conversation] = _Last(heard, [command])

    def popped(self, conversation: Conversation, heard: int) -> None:
        """Whoever asks for items has read the replies to its pushes, or sent all at once."""
        last = self._last.get(conversation)
        if last and last.heard != heard:
            del self._last[conversation]

    def closed(self, conversation: Conversation, *, was_read: bool) -> None:
        last = self._last.pop(conversation, None)
        if last and not was_read and last.heard == conversation.heard:
            self._unread += last.commands

    def went_on(self) -> None:
        """The program has finished an item without sending again what it may not have read."""
        self._unread.clear()

    # --- what is so

    def may_be_unread(self, conversation: Conversation) -> bool:
        last = self._last.get(conversation)
        return last is not None and last.heard == conversation.heard

    def may_repeat(self, command: Command, whose: Iterable[Conversation]) -> bool:
        """If they have not read the reply to theirs."""
        found = (self._last.get(conversation) for conversation in whose)
        return any(last is not None and command in last.commands for last in found)

    def is_repeated(self, command: Command) -> bool:
        """True once for each that was carried out and not read."""
        if command not in self._unread:
            return False
        self._unread.remove(command)
        return True

    # --- those that belong to no item

    def strays_off(self, conversation: Conversation, command: Command) -> Stray:
        stray = Stray(conversation, command)
        self._strays.append(stray)
        return stray

    def joins_stray(self, conversation: Conversation, command: Command) -> bool:
        """It waits from now on for the answer to what another connection, which is gone, has
        pushed."""
        for stray in self._strays:
            if stray.asker.has_ended and stray.command == command:
                stray.asker = conversation
                self.is_repeated(command)
                return True
        return False

    def is_settled(self, stray: Stray, *, failed: bool) -> None:
        self._strays.remove(stray)
        if failed:
            # It was not carried out: sent again it is a new one.
            self._last.pop(stray.asker, None)
            self.is_repeated(stray.command)
