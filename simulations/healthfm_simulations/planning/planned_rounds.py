"""Rounds of a study in virtual time without training: orders of the right sizes go their ways.

The network and the coordinator's exchanges, with their deadlines, are those of a simulated run
(`network_grid`, `transport.exchange`); the sites answer with what stands for an update.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from healthfm_core.config import RunConfig
from healthfm_core.federation import protocol
from healthfm_core.federation.parameter_groups import groups_held
from healthfm_server.round_loop import quorum_of, sampled_sites
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_simulations.engine.nodes import NodeSpec
from healthfm_simulations.network.network_grid import NetworkGrid, OrderCourse
from healthfm_simulations.planning.measured_start import SiteKind
from healthfm_simulations.planning.message_sizes import MessageSizes, of_groups

_BYTES: Final = "bytes"
"""Key of a record that stands for so many."""
_SMALL: Final = 2000
"""Bytes of a message with little in it."""
_MOST_MISSED: Final = 10
"""Rounds in a row that may miss their quorum before a plan says that the study does not end."""


@dataclass(frozen=True)
class PlannedRound:
    """One round.

    Attributes:
        number: Of the round.
        seconds: It took.
        asked: Sites asked.
        answered: Whose update came in time.
        last: The course of the update that came last; None where none came.
        bytes_down: Of models, to all sites together.
        bytes_up: Of updates, from those that answered.
    """

    number: int
    seconds: float
    asked: int
    answered: int
    last: OrderCourse | None
    bytes_down: int
    bytes_up: int


@dataclass
class PlannedRounds:
    """A planned study.

    Attributes:
        config: The run's settings, with its network.
        sizes: Of its messages.
        sites: Name → what the site is like.
        rounds: What came of each.
        missed: Rounds that missed their quorum and were begun again.
        beside_s: What passed before round 1 and in rounds that missed their quorum.
    """

    config: RunConfig
    sizes: MessageSizes
    sites: Mapping[str, SiteKind]
    rounds: list[PlannedRound] = field(default_factory=list)
    missed: int = 0
    beside_s: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.beside_s + math.fsum(one.seconds for one in self.rounds)

    @property
    def ends(self) -> bool:
        """Whether all rounds were closed."""
        return len(self.rounds) == self.config.federation.rounds

    def run(self) -> None:
        """Let the rounds pass."""
        quorum = self.config.federation.quorum
        with tempfile.TemporaryDirectory() as folder:
            coordinator = _PlannedCoordinator(self, Path(folder))
            self.beside_s = coordinator.set_up()
            in_a_row = 0
            while not self.ends and in_a_row < _MOST_MISSED:
                one = coordinator.round(len(self.rounds) + 1)
                if one.answered < quorum_of(one.asked, quorum):
                    self.missed, in_a_row = self.missed + 1, in_a_row + 1
                    self.beside_s += one.seconds
                else:
                    in_a_row = 0
                    self.rounds.append(one)


class _PlannedCoordinator:
    """Asks and waits as the coordinator does, and adds nothing up."""

    def __init__(self, plan: PlannedRounds, folder: Path) -> None:
        self._sizes, self._sites = plan.sizes, plan.sites
        self._seed, self._federation = plan.config.seed, plan.config.federation
        self._secure = self._federation.aggregation.secure
        nodes = [NodeSpec(name, ()) for name in plan.sites]
        self._grid = PlannedGrid(nodes, plan.config, folder, plan.sites)
        self._nodes = {node.name: i for i, node in enumerate(nodes, start=1)}
        self._exchange = Exchange(self._grid, folder, clock=self._grid.clock)
        self._timeouts = Timeouts(self._federation.deadline_s, self._federation.ttl_s)
        most_s = min(self._secure.message_timeout_s, self._federation.deadline_s)
        self._of_letters = Timeouts(most_s, self._federation.ttl_s)
        self._held: set[str] = set()

    def set_up(self) -> float:
        """Let statistics and study pass; return how long they took."""
        names, sizes = list(self._sites), self._sizes
        if self._secure.enabled:
            self._all(protocol.STATISTICS, "sites", _SMALL, _SMALL)
            letters = sizes.letters(len(names))
            for number, masked in enumerate(sizes.masked_statistics):
                for kind in (protocol.KEYS, protocol.SHARES):
                    self._letter(kind, str(number), names, letters)
                self._all(protocol.STATISTICS, str(number), letters["mailbox"][0], masked)
                self._letter(protocol.UNMASK, str(number), names, letters)
        else:
            self._all(protocol.STATISTICS, "sites", _SMALL, sizes.statistics)
        self._all(protocol.PREPARE, "sites", sizes.study, _SMALL)
        return self._grid.clock.now_s

    def _all(self, kind: str, group: str, down: int, up: int) -> None:
        names = list(self._sites)
        self._ask(kind, group, dict.fromkeys(names, down), dict.fromkeys(names, up))

    def round(self, number: int) -> PlannedRound:
        """Let one round pass."""
        begun_s, group = self._grid.clock.now_s, str(number)
        asked = sampled_sites(self._sites, self._federation.fraction, self._seed, number)
        letters = self._sizes.letters(len(asked)) if self._secure.enabled else {}
        for kind in (protocol.KEYS, protocol.SHARES) if letters else ():
            self._letter(kind, group, asked, letters)
        down, up = self._of_training(number, asked, letters)
        courses = self._ask(protocol.TRAIN, group, down, up)
        answered = [course.site for course in courses]
        if letters and answered:
            self._letter(protocol.UNMASK, group, answered, letters)
        self._held = set(answered)
        return PlannedRound(
            number=number,
            seconds=self._grid.clock.now_s - begun_s,
            asked=len(asked),
            answered=len(answered),
            last=courses[-1] if courses else None,
            bytes_down=sum(down.values()),
            bytes_up=sum(up[site] for site in answered),
        )

    def _of_training(
        self, number: int, asked: Sequence[str], letters: Mapping[str, tuple[int, int]]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Return site → bytes of its order, and of its answer."""
        down, up = dict[str, int](), dict[str, int]()
        masked = self._sizes.masked(len(asked)) if letters else 0
        beside = self._sizes.order + (letters["mailbox"][0] if letters else 0)
        for site in asked:
            groups = tuple(self._sizes.whole)
            if not letters:
                groups = groups_held(self._sites[site].modalities, groups)
            changed = self._sizes.change if site in self._held else self._sizes.whole
            down[site] = beside + of_groups(self._sizes.first if number == 1 else changed, groups)
            up[site] = masked or of_groups(self._sizes.update, groups)
        return down, up

    def _letter(
        self, kind: str, group: str, sites: Sequence[str], letters: Mapping[str, tuple[int, int]]
    ) -> None:
        down, up = letters[kind]
        self._ask(kind, group, dict.fromkeys(sites, down), dict.fromkeys(sites, up))

    def _ask(
        self, kind: str, group: str, down: Mapping[str, int], up: Mapping[str, int]
    ) -> list[OrderCourse]:
        """Send messages to the sites that are there and free; return what came back in time."""
        self._grid.answers.update(up)
        free = set(self._grid.get_node_ids()) - self._exchange.busy()
        contents = {self._nodes[site]: sized(n) for site, n in down.items()}
        contents = {node: content for node, content in contents.items() if node in free}
        is_letter = kind in (protocol.KEYS, protocol.SHARES, protocol.UNMASK)
        timeouts = self._of_letters if is_letter else self._timeouts
        replies = self._exchange(contents, kind, group, timeouts)
        return [self._grid.taken.pop(reply.metadata.reply_to_message_id) for reply in replies]


class PlannedGrid(NetworkGrid):
    """A simulated network whose sites train nothing.

    Args:
        nodes: The sites.
        config: The run's settings.
        folder: For notes of waits.
        kinds: Site → what it is like.
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        config: RunConfig,
        folder: Path,
        kinds: Mapping[str, SiteKind],
    ) -> None:
        super().__init__(ClientApp(), nodes, config.network, config.seed, folder)
        self._train, self._kinds = config.train, kinds
        self.answers: dict[str, int] = {}
        self.taken: dict[str, OrderCourse] = {}

    def _answer(self, course: OrderCourse) -> tuple[Message, float]:
        reply = Message(sized(self.answers[course.site]), reply_to=course.message)
        is_training = course.message.metadata.message_type == protocol.TRAIN
        return reply, float(self._steps(course.site)) if is_training else 0.0

    def _steps(self, site: str) -> int:
        rows, train = self._kinds[site].people, self._train
        steps = math.ceil(rows * train.local_epochs / train.batch_size)
        return steps if train.max_steps is None else min(steps, train.max_steps)

    def _size(self, content: RecordDict) -> int:
        return int(str(content.config_records[protocol.ORDER][_BYTES]))

    def _taken(self, key: str, course: OrderCourse) -> None:
        self.taken[key] = course


def sized(n_bytes: int) -> RecordDict:
    """Return records that stand for so many bytes and take none."""
    return RecordDict({protocol.ORDER: ConfigRecord({_BYTES: n_bytes})})
