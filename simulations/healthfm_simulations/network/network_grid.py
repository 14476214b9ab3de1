"""The in-process grid behind simulated lines: the real apps, and no time but virtual time.

A site's app runs when its computing would begin; what it answers lies on disk until it would have
arrived. The coordinator's clock is the grid's: while it waits, the lines move (`simulated_clock`).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from healthfm_core.flower.message_internals import set_message_id
from healthfm_core.training import DriftCorrection, PrivacyPlan
from healthfm_server.transport.array_file import ReplyFile
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
from healthfm_simulations.network.site_connections import (
    SiteConnection,
    of_one_site,
    site_connections,
)

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
class OrderCourse:
    """One message, what becomes of it, and what takes how long of its way.

    Attributes:
        site: Whose.
        message: It.
        line: Of its site.
        luck: What chance has in store for it.
        reply: The site's, once it was computed.
        down_s: Coming down the line.
        waits_s: For the site's hours.
        computes_s: At work.
        up_s: Going up the line.
        idle_s: Until somebody looks for it, at both ends.
        arrived_s: When the coordinator has the reply.
    """

    site: str
    message: Message
    line: SiteConnection
    luck: OrderLuck
    reply: Message | None = None
    down_s: float = 0.0
    waits_s: float = 0.0
    computes_s: float = 0.0
    up_s: float = 0.0
    idle_s: float = 0.0
    arrived_s: float = math.inf

    @property
    def seconds(self) -> float:
        """Return how long its whole way took."""
        return self.down_s + self.waits_s + self.computes_s + self.up_s + self.idle_s


class NetworkGrid(InProcessGrid):
    """Runs the sites of a simulated network.

    Args:
        app: The sites' app.
        nodes: The sites; a node's number is its place from 1.
        config: The network.
        seed: The run's.
        folder: On whose disk replies lie while they are on their way.
        work: What the app does, with its steps counted; without it nothing is computed.
        begin_s: What the clock shows first.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Sequence[NodeSpec],
        config: NetworkConfig,
        seed: int,
        folder: Path,
        work: CountedWork | None = None,
        begin_s: float = 0.0,
    ) -> None:
        super().__init__(app, nodes)
        self._names = {i: node.name for i, node in enumerate(nodes, start=1)}
        lines = site_connections(config, list(self._names.values()), seed)
        if len(nodes) == 1:  # nothing travels: who trains alone does so at home
            config, lines = of_one_site(config), {n: c.without_line() for n, c in lines.items()}
        self._lines = {i: lines[name] for i, name in self._names.items()}
        self._config, self._seed, self._work, self._folder = config, seed, work, folder
        self._sharing = LineSharing(config.coordinator_mbit_s, begin_s)
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._set = 0
        self._courses: dict[str, OrderCourse] = {}
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
        return cls(app, nodes, config.network, config.seed, folder, counted, begin_s)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes whose clocks are right enough for them to be let in."""
        return [node for node in super().get_node_ids() if not self._lines[node].is_refused]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages on their way and return their ids."""
        ids = []
        for message in messages:
            self._sent += 1
            key = str(self._sent)
            set_message_id(message, key)
            node = message.metadata.dst_node_id
            course = OrderCourse(self._names[node], message, self._lines[node], self._luck(message))
            self._courses[key] = course
            if not (course.luck.is_lost and course.luck.before_work):
                course.idle_s += self._config.idle_s / 2
                self._later(course.idle_s, partial(self._come_down, course))
            ids.append(key)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies that have arrived."""
        now_s = self.clock.now_s
        wanted = [key for key in message_ids if key in self._courses]
        here = [key for key in wanted if self._courses[key].arrived_s <= now_s]
        for key in sorted(here, key=lambda one: self._courses[one].arrived_s):
            course = self._courses.pop(key)
            self._taken(key, course)
            yield cast(Message, course.reply)

    def _taken(self, key: str, course: OrderCourse) -> None:
        """Hear of a reply that the coordinator takes, by the message it is to."""

    def _luck(self, message: Message) -> OrderLuck:
        """Return an order's luck, the same for a run that is resumed before it."""
        about = message.metadata
        what = f"{about.message_type}/{about.group_id}/{about.dst_node_id}"
        self._asked[what] += 1
        name = self._names[about.dst_node_id]
        return order_luck(self._config, self._seed, name, f"{what}/{self._asked[what]}")

    def _come_down(self, course: OrderCourse) -> None:
        begun_s = self._sharing.now_s

        def come(at_s: float) -> None:
            course.down_s = at_s - begun_s
            self._work_on(course)

        self._travel(course, self._size(course.message.content), up=False, then=come)

    def _work_on(self, course: OrderCourse) -> None:
        """The order has come: compute when the site does so."""
        if course.message.metadata.message_type == TRAIN:
            now_s = self._sharing.now_s
            begins_s = begin_work_s(self._config.hours, course.line.zone_h, now_s)
            course.waits_s = begins_s - now_s
        self._later(course.waits_s, partial(self._compute, course))

    def _compute(self, course: OrderCourse) -> None:
        reply, steps = self._answer(course)
        if course.luck.is_lost:
            return
        course.reply = self._on_disk(reply)
        steps_per_s = course.line.at(self._sharing.now_s).steps_per_s
        course.computes_s = course.luck.slowness * steps / steps_per_s
        self._later(course.computes_s, partial(self._go_up, course))

    def _answer(self, course: OrderCourse) -> tuple[Message, float]:
        """Return a site's reply, and how many steps it trained for it."""
        if self._work is None:
            return self._deliver(course.message), 0.0
        self._work.steps = 0.0
        return self._deliver(course.message), self._work.steps

    def _go_up(self, course: OrderCourse) -> None:
        begun_s = self._sharing.now_s
        reply = cast(Message, course.reply)

        def arrive(at_s: float) -> None:
            course.up_s = at_s - begun_s
            course.idle_s += self._config.idle_s / 2
            course.arrived_s = at_s + self._config.idle_s / 2
            self._later(self._config.idle_s / 2, lambda: None)

        size = self._size(reply.content) if reply.has_content() else 0
        self._travel(course, size, up=True, then=arrive)

    def _travel(
        self, course: OrderCourse, n_bytes: int, *, up: bool, then: Callable[[float], None]
    ) -> None:
        """Let a message go its way; `then` it is there."""
        now_s = self._sharing.now_s
        first_s = now_s + requests_s(course.line, now_s)
        if first_s == math.inf:  # offline: again when that changes
            change_s = course.line.next_change_s(now_s)
            if change_s < math.inf:
                again = partial(self._travel, course, n_bytes, up=up, then=then)
                self._later(change_s - now_s, again)
            return
        self._sharing.add(Transfer(course.line, bits_of(n_bytes), up, first_s, then))

    def _size(self, content: RecordDict) -> int:
        """Return about how many bytes a message's records are as they travel."""
        arrays = (array for record in content.array_records.values() for array in record.values())
        texts = (
            len(str(name)) + len(str(value))
            for records in (content.config_records, content.metric_records)
            for record in records.values()
            for name, value in record.items()
        )
        return sum(len(array.data) for array in arrays) + sum(texts)

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

    def _later(self, wait_s: float, act: Callable[[], None]) -> None:
        """Let something happen after a while."""
        self._set += 1  # what is due at one moment happens in the order in which it was set
        heapq.heappush(self._alarms, (self._sharing.now_s + wait_s, self._set, act))

    def _next_s(self) -> float:
        alarm_s = self._alarms[0][0] if self._alarms else math.inf
        return min(alarm_s, self._sharing.next_s())

    def _pass_to(self, until_s: float) -> None:
        """Let everything happen up to a moment, in its order."""
        while (at_s := self._next_s()) <= until_s:
            self._sharing.advance(at_s)
            while self._alarms and self._alarms[0][0] <= self._sharing.now_s:
                heapq.heappop(self._alarms)[2]()
        self._sharing.advance(until_s)
