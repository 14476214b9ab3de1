"""The in-process grid behind simulated lines: the real apps, and no time but virtual time.

A site's app runs when its computing would begin; what it answers lies on disk until it would have
arrived. The coordinator's clock is the grid's: while it waits, the lines move (`simulated_clock`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from healthfm_client.app import make_app
from healthfm_client.local_work import LocalWork
from healthfm_core.arrays import Float32
from healthfm_core.config import RunConfig
from healthfm_core.config.network import NetworkConfig
from healthfm_core.federation.protocol import TRAIN, RoundOrder, RoundResult, Study
from healthfm_core.training import DriftCorrection, PrivacyPlan
from healthfm_server.transport.array_file import ReplyFile
from healthfm_simulations.engine.flower_internals import stamp
from healthfm_simulations.engine.inprocess import InProcessGrid
from healthfm_simulations.engine.nodes import NodeSpec
from healthfm_simulations.network.line_sharing import LineSharing, Transfer
from healthfm_simulations.network.order_course import (
    OrderLuck,
    begin_work_s,
    bits_of,
    order_luck,
    requests_s,
)
from healthfm_simulations.network.simulated_clock import SimulatedClock
from healthfm_simulations.network.site_lines import SiteLine, at_home, site_lines

_STEPS = "steps"
"""Name of the metric that says how many local steps a round took."""


class CountedWork:
    """The sites' work, and how many steps each round's training took.

    Args:
        work: The real one.
    """

    def __init__(self, work: LocalWork) -> None:
        self._work = work
        self.steps = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def train_round(
        self,
        parameters: Mapping[str, Float32],
        data: Any,
        study: Study,
        order: RoundOrder,
        private: PrivacyPlan | None = None,
        drift: DriftCorrection | None = None,
    ) -> RoundResult:
        """Train, and note the steps."""
        result = self._work.train_round(parameters, data, study, order, private, drift)
        self.steps = float(result.metrics.get(_STEPS, 1.0)) if order.train else 0.0
        return result


@dataclass
class _Order:
    """One message and what becomes of it.

    Attributes:
        message: It.
        line: Of its site.
        luck: What chance has in store for it.
        reply: The site's, once it was computed.
        arrived_s: When the coordinator has it.
    """

    message: Message
    line: SiteLine
    luck: OrderLuck
    reply: Message | None = None
    arrived_s: float = math.inf


@dataclass
class _Alarm:
    """Something that happens at a moment."""

    at_s: float
    act: Callable[[], None] = field(repr=False)


class NetworkGrid(InProcessGrid):
    """Runs the sites of a simulated network.

    Args:
        app: The sites' app, over `work`.
        nodes: The sites; a node's number is its place from 1.
        config: The network.
        seed: The run's.
        work: What the app does, with its steps counted.
        folder: On whose disk replies lie while they are on their way.
        begin_s: What the clock shows first.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Sequence[NodeSpec],
        config: NetworkConfig,
        seed: int,
        work: CountedWork,
        folder: Path,
        begin_s: float = 0.0,
    ) -> None:
        super().__init__(app, nodes)
        self._names = {i: node.name for i, node in enumerate(nodes, start=1)}
        lines = site_lines(config, list(self._names.values()), seed)
        if len(nodes) == 1:  # nothing travels: who trains alone does so at home
            config, lines = at_home(config), {n: line.at_home() for n, line in lines.items()}
        self._lines = {i: lines[name] for i, name in self._names.items()}
        self._config, self._seed, self._work, self._folder = config, seed, work, folder
        self._sharing = LineSharing(config.coordinator_mbit_s, begin_s)
        self._alarms: list[_Alarm] = []
        self._orders: dict[str, _Order] = {}
        self._asked: Counter[str] = Counter()
        self.clock = SimulatedClock(self._next_s, self._pass_to, begin_s)

    @classmethod
    def over(
        cls,
        work: LocalWork,
        nodes: Sequence[NodeSpec],
        config: RunConfig,
        folder: Path,
        begin_s: float = 0.0,
    ) -> Self:
        """Return the grid of a run over its sites' work; for the others see the class."""
        counted = CountedWork(work)
        app = make_app(cast(LocalWork, counted))
        return cls(app, nodes, config.network, config.seed, counted, folder, begin_s)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes whose clocks are right enough for them to be let in."""
        return [node for node in super().get_node_ids() if not self._lines[node].is_refused]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages on their way and return their ids."""
        ids = []
        for message in messages:
            self._sent += 1
            key = str(self._sent)
            stamp(message, key)
            node = message.metadata.dst_node_id
            luck = self._luck(message)
            order = _Order(message, self._lines[node], luck)
            self._orders[key] = order
            if not (luck.is_lost and luck.before_work):
                self._travel(order, message.content, False, self._config.idle_s / 2, self._work_on)
            ids.append(key)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies that have arrived."""
        wanted = [key for key in message_ids if key in self._orders]
        here = [key for key in wanted if self._orders[key].arrived_s <= self.clock.now_s]
        for key in sorted(here, key=lambda one: self._orders[one].arrived_s):
            yield cast(Message, self._orders.pop(key).reply)

    def _luck(self, message: Message) -> OrderLuck:
        """Return an order's luck, the same for a run that is resumed before it."""
        about = message.metadata
        what = f"{about.message_type}/{about.group_id}/{about.dst_node_id}"
        self._asked[what] += 1
        name = self._names[about.dst_node_id]
        return order_luck(self._config, self._seed, name, f"{what}/{self._asked[what]}")

    def _travel(
        self,
        order: _Order,
        content: RecordDict | None,
        up: bool,
        wait_s: float,
        then: Callable[[_Order, float], None],
    ) -> None:
        """Let a message begin its way after `wait_s`; `then` it is there."""

        def begin() -> None:
            size = bits_of(0 if content is None else size_of(content))
            now_s = self._sharing.now_s
            first_s = now_s + requests_s(order.line, now_s)
            if first_s == math.inf:  # offline: again when that changes
                self._alarms.append(_Alarm(order.line.next_change_s(now_s), begin))
                return
            transfer = Transfer(order.line, size, up, first_s, lambda at_s: then(order, at_s))
            self._sharing.add(transfer)

        self._alarms.append(_Alarm(self._sharing.now_s + wait_s, begin))

    def _work_on(self, order: _Order, now_s: float) -> None:
        """The order has come: compute when the site does so, and send the answer."""
        begins_s = now_s
        if order.message.metadata.message_type == TRAIN:
            begins_s = begin_work_s(self._config.hours, order.line.zone_h, now_s)
        self._alarms.append(_Alarm(begins_s, lambda: self._compute(order)))

    def _compute(self, order: _Order) -> None:
        self._work.steps = 0.0
        reply = self._deliver(order.message)
        steps_per_s = order.line.at(self._sharing.now_s).steps_per_s
        takes_s = order.luck.slowness * self._work.steps / steps_per_s
        if order.luck.is_lost:
            return
        order.reply = self._on_disk(reply)
        content = reply.content if reply.has_content() else None
        self._travel(order, content, True, takes_s, self._arrive)

    def _arrive(self, order: _Order, now_s: float) -> None:
        order.arrived_s = now_s + self._config.idle_s / 2
        self._alarms.append(_Alarm(order.arrived_s, lambda: None))

    def _on_disk(self, reply: Message) -> Message:
        """Return a reply whose arrays lie in a file."""
        records = reply.content.array_records.values() if reply.has_content() else ()
        arrays = [array for record in records for array in record.values()]
        with ReplyFile(self._folder, sum(len(array.data) for array in arrays)) as file:
            for array in arrays:
                file.append(array.data)
            view, start = file.view(), 0
        for array in arrays:
            end = start + len(array.data)
            array.data = cast(bytes, view[start:end])
            start = end
        return reply

    def _next_s(self) -> float:
        alarms = min((alarm.at_s for alarm in self._alarms), default=math.inf)
        return min(alarms, self._sharing.next_s())

    def _pass_to(self, until_s: float) -> None:
        """Let everything happen up to a moment, in its order."""
        while (at_s := min(self._next_s(), until_s)) < until_s or self._is_due(until_s):
            self._sharing.advance(at_s)
            for alarm in [one for one in self._alarms if one.at_s <= self._sharing.now_s]:
                self._alarms.remove(alarm)
                alarm.act()
        self._sharing.advance(until_s)

    def _is_due(self, now_s: float) -> bool:
        return any(alarm.at_s <= now_s for alarm in self._alarms)


def size_of(content: RecordDict) -> int:
    """Return about how many bytes a message's records are as they travel."""
    arrays = (array for record in content.array_records.values() for array in record.values())
    texts = (
        len(str(name)) + len(str(value))
        for records in (content.config_records, content.metric_records)
        for record in records.values()
        for name, value in record.items()
    )
    return sum(len(array.data) for array in arrays) + sum(texts)
