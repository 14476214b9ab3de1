"""Replies that came too late are dropped, or the node would be a message behind for good.

A message can get two replies: the worker's, and the error that says that its run was stopped or
that the worker is gone. Flower's node sends whatever reply it finds first for the message at hand,
so a second one, found later, goes out in place of the next message's, and each one after it late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RepliesToOneMessage:
    """A node's state that shows the replies to one message alone, and drops all others.

    Args:
        number: Id of the message at hand.
        state: Flower's state of the node; all else that is asked of this is asked of it.
        store: Flower's store, where a reply's pieces lie.
    """

    def __init__(self, number: str, state: Any, store: Any) -> None:
        self._number = number
        self._state = state
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_messages_legacy(self, **wanted: Any) -> Sequence[Any]:
        """Return the messages `wanted` that answer the one at hand."""
        replies = self._state.get_messages_legacy(**wanted)
        late = [m for m in replies if m.metadata.reply_to_message_id != self._number]
        self._state.delete_messages(message_ids=[m.metadata.message_id for m in late])
        for message in late:
            self._store.delete(message.metadata.message_id)
        return [message for message in replies if message not in late]
