"""Messages out, replies in as they arrive: sent once, polled until a deadline, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from healthfm_core.errors import ProtocolError, RunError
from healthfm_core.federation.update_checks import is_divergence
from healthfm_server.clock import SYSTEM_CLOCK, Clock
from healthfm_server.run_folder.run_waiting import WaitingNote
from healthfm_server.transport.flower_grid import of_node, replies

POLL_S: Final = 0.1
"""Shortest pause between two looks at a grid that had nothing new."""
LONGEST_POLL_S: Final = 1.0
WAITED: Final = 0.05
"""The pause is this share of the time waited so far, because each look costs the SuperLink work."""

SMALL_REPLY_BYTES: Final = 2**30
REPLY_FACTOR: Final = 4
"""The arrays of a reply may have 1 GiB and four times what the order brought: an update of 64-bit
words, and as much again of control variates. More is a site that fills the coordinator's disk."""


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for replies.

    Attributes:
        deadline_s: From sending to the close of the exchange.
        ttl_s: Life of a message; a later reply is dropped.
        patience: How many times the slowest answer so far a round waits (`measured_deadline`);
            0: always until the deadline.
    """

    deadline_s: float
    ttl_s: float
    patience: float = 0.0


@dataclass(frozen=True)
class _Pending:
    """A message that nobody has answered yet.

    Attributes:
        node: Whom it went to.
        sent_at: When it went, of the monotonic clock, in seconds.
        until: When it expires, of that clock.
        most_bytes: What the arrays of its reply may have at most.
    """

    node: int
    sent_at: float
    until: float
    most_bytes: int


def _most_bytes(sent: RecordDict) -> int:
    arrays = (array for record in sent.array_records.values() for array in record.values())
    return SMALL_REPLY_BYTES + REPLY_FACTOR * sum(len(array.data) for array in arrays)


class Exchange:
    """Sends messages to nodes and yields their replies; remembers who has not replied yet.

    Args:
        grid: Flower's grid, of whatever engine.
        folder: On whose disk a reply's arrays lie while they are looked at.
        stopped: Asked between looks; when true the exchange ends with HF-705.
        clock: By which it waits.

    Attributes:
        late_s: Node → seconds after which its answer came that nobody waited for any more; until
            it answers in time.
    """

    def __init__(
        self,
        grid: Grid,
        folder: Path,
        stopped: Callable[[], bool] = lambda: False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._grid = grid
        self._folder = folder
        self._stopped = stopped
        self.clock = clock
        self._pending: dict[str, _Pending] = {}
        self.late_s: dict[int, float] = {}

    def busy(self) -> set[int]:
        """Return the nodes that still work on a message of an earlier exchange."""
        now = self.clock.monotonic()
        self._pending = {key: one for key, one in self._pending.items() if one.until > now}
        return {one.node for one in self._pending.values()}

    def __call__(
        self, contents: Mapping[int, RecordDict], kind: str, group: str, timeouts: Timeouts
    ) -> Iterator[Message]:
        """Send `contents` (node → records) and yield each reply once, until all or the deadline.

        A reply to an earlier exchange is dropped; it shows that its node is free again.

        Raises:
            RunError: The run was stopped (HF-705).
        """
        messages = [
            Message(records, node, kind, ttl=timeouts.ttl_s, group_id=group)
            for node, records in contents.items()
        ]
        sent_at = self.clock.monotonic()
        closes_at, until = sent_at + timeouts.deadline_s, sent_at + timeouts.ttl_s
        waiting = [
            _Pending(node, sent_at, until, _most_bytes(sent)) for node, sent in contents.items()
        ]
        ids = list(self._grid.push_messages(messages))
        note = WaitingNote(self._folder, "answers", group, len(ids), contents)
        del messages, contents  # a model's worth of bytes, while replies are waited for
        expected = set(ids)
        self._pending |= dict(zip(ids, waiting, strict=True))
        while expected and self.clock.monotonic() < closes_at:
            any_new = False
            for pending, reply in self._pull():
                any_new = True
                if reply.metadata.reply_to_message_id in expected:
                    expected.discard(reply.metadata.reply_to_message_id)
                    self.late_s.pop(pending.node, None)
                    yield reply
                else:
                    self.late_s[pending.node] = self.clock.monotonic() - pending.sent_at
                del reply  # or it would be held until the next one is whole
            note.of([self._pending[key].node for key in expected if key in self._pending])
            if expected and not any_new:
                waited_s = self.clock.monotonic() - sent_at
                pause_s = min(max(POLL_S, WAITED * waited_s), LONGEST_POLL_S)
                self.clock.await_news(pause_s, closes_at)
        note.over()

    def rest(self, seconds: float) -> None:
        """Sleep, and end at once when the run is stopped.

        Raises:
            RunError: The run was stopped (HF-705).
        """
        until = self.clock.monotonic() + seconds
        while (left := until - self.clock.monotonic()) > 0:
            if self._stopped():
                raise run_was_stopped()
            self.clock.sleep(min(left, POLL_S))

    def _pull(self) -> Iterable[tuple[_Pending, Message]]:
        if self._stopped():
            raise run_was_stopped()
        most = {key: one.most_bytes for key, one in self._pending.items()}
        for reply in replies(self._grid, most, self._folder):
            pending = self._pending.pop(reply.metadata.reply_to_message_id, None)
            if pending is not None:
                yield pending, of_node(reply, pending.node) if reply.has_error() else reply
            del reply


def run_was_stopped() -> RunError:
    """Return the error of a run that was stopped from outside (HF-705)."""
    return RunError(705, where="round loop", seen="the run was stopped")


def too_few(
    where: str, asked: int, answered: int, reasons: Mapping[str, str]
) -> ProtocolError | RunError:
    """Return the error for an exchange that missed its quorum.

    Returns:
        HF-726 where training went out of bounds at most of the sites it lacks; else HF-403.
    """
    examples = sorted(set(reasons.values()))[:3]
    diverged = sorted(reason for reason in reasons.values() if is_divergence(reason))
    if 2 * len(diverged) > asked - answered:
        return RunError(
            726,
            where=where,
            seen=f"training went out of bounds at {len(diverged)} of {asked} sites "
            f"({diverged[0][:200]})",
            wanted="finite losses, and updates within federation.aggregation.max_update_norm",
        )
    because = f" ({'; '.join(examples)})" if examples else ""
    return ProtocolError(
        403,
        where=where,
        seen=f"{answered} of {asked} sites gave a usable answer{because}",
        wanted="federation.quorum of them must",
        do="See events.log and put the sites right; a study's run goes on by itself, a simulation "
        "with resume=true",
    )
