"""A regional coordinator: to its own sites a coordinator, to the national one a site.

It passes the questions of before round 1 on, and each site's statistics back as they are. A
training order it gives to each of its sites as the national coordinator would: the same seeds, the
same groups. Their updates it holds to the bounds of one site, adds up in the unit of the whole
round, and sends the sums. Sums of sums are the sum (`weighted_mean`), so that the national model
is the same to the bit as if all sites had been asked by the national coordinator.

No site has more than its share of the whole round's weight. How long the others' updates are, a
region knows of its own sites alone: where one is shortened for that, the two may differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from healthfm_core.arrays import Arrays
from healthfm_core.errors import HealthFMError, ProtocolError
from healthfm_core.federation import protocol, wire
from healthfm_core.federation.aggregation.method_registry import methods
from healthfm_core.federation.aggregation.server_optimizer import OptimizerState
from healthfm_core.federation.aggregation.weighted_mean import PartialSums, WeightedMean
from healthfm_core.federation.compression.error_feedback import uplink_compressor
from healthfm_core.federation.parameter_groups import groups_held
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_server.round_history import history_row
from healthfm_server.round_loop import quorum_of
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.run_progress import ignore_progress
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.study_setup.core_model_setup import CoreModelSetup
from healthfm_server.study_setup.region_statistics import side_by_side
from healthfm_server.study_setup.registered_sites import RegisteredSite, read_site
from healthfm_server.study_setup.setup import StudySetup
from healthfm_server.transport.array_records import read
from healthfm_server.transport.clear import ClearTransport
from healthfm_server.transport.exchange import Exchange, Timeouts, too_few
from healthfm_server.transport.interface import Collected, OpenRound
from healthfm_server.transport.orders import Orders


def make_app(
    grid: Grid, folder: Path, timeouts: Timeouts, stopped: Callable[[], bool] = lambda: False
) -> ClientApp:
    """Return the app that answers the national coordinator.

    Args:
        grid: Of the region's own sites.
        folder: Where it keeps its study and the history of its rounds.
        timeouts: How long it waits for its sites, and how long its messages to them live.
        stopped: Asked between replies; when true a round ends with HF-705.
    """
    region, app = RegionalCoordinator(grid, folder, timeouts, stopped), ClientApp()
    app.query("statistics")(_answering(region.statistics))
    app.query("prepare")(_answering(region.prepare))
    app.train()(_answering(region.train))
    return app


Handler = Callable[[Message, Context], RecordDict]


def _answering(handler: Handler) -> Callable[[Message, Context], Message]:
    def answer(message: Message, context: Context) -> Message:
        try:
            return Message(handler(message, context), reply_to=message)
        except HealthFMError as error:
            return Message(Error(error.number, str(error)), reply_to=message)

    return answer


@dataclass(frozen=True)
class _RegionalStudy:
    """A study that the region's sites have prepared for."""

    study: Study
    orders: Orders
    transport: ClearTransport


@dataclass
class RegionalCoordinator:
    """One region.

    Attributes:
        grid: Of its sites.
        folder: Its own.
        timeouts: Of its exchanges.
        stopped: Asked between replies.
        prepared: The study at work; None before there is one, and after a restart.
    """

    grid: Grid
    folder: Path
    timeouts: Timeouts
    stopped: Callable[[], bool]
    prepared: _RegionalStudy | None = None
    exchange: Exchange = field(init=False)
    store: RunStore = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.exchange = Exchange(self.grid, self.folder, self.stopped)
        self.store = RunStore(self.folder, keep=1)

    def statistics(self, message: Message, context: Context) -> RecordDict:
        """Pass the question on, and each site's answer back.

        Raises:
            ProtocolError: No site gave a usable answer (HF-403).
        """
        order = message.content.config_records[protocol.ORDER]
        found: dict[str, tuple[RegisteredSite, SiteStatistics]] = {}
        reasons: dict[str, str] = {}
        for reply in self._ask(protocol.STATISTICS, dict(order)):
            try:
                site, arrays = _answered(reply)
                statistics = SiteStatistics.from_arrays(dict(arrays))
                statistics.check_people(site.n_subjects)
                found[site.name] = site, statistics
            except (HealthFMError, KeyError, ValueError, TypeError) as error:
                reasons[str(reply.metadata.src_node_id)] = str(error)[:300]
        if not found:
            raise too_few("statistics", len(reasons), 0, reasons)
        sites = [site for _, (site, _) in sorted(found.items())]
        arrays = side_by_side(statistics for _, (_, statistics) in sorted(found.items()))
        return RecordDict({protocol.SITE: _record(sites, context), protocol.ARRAYS: _one(arrays)})

    def prepare(self, message: Message, context: Context) -> RecordDict:
        """Let the sites prepare for a study, and answer with what they cover on average.

        Raises:
            ProtocolError: Too few sites prepared (HF-403).
        """
        study = Study.from_json(str(message.content.config_records[protocol.ORDER]["study"]))
        self.store.save_study(study)
        nodes = sorted(self.grid.get_node_ids())
        setup = StudySetup(
            self.exchange, self.store, self.timeouts, ignore_progress, CoreModelSetup()
        )
        sites = setup.sites(nodes, study)
        self.prepared = self._at_work(study, sites)
        metrics = MetricRecord(dict(self._coverage(sites)))
        record = _record(list(sites.values()), context)
        return RecordDict({protocol.SITE: record, protocol.METRICS: metrics})

    def train(self, message: Message, context: Context) -> RecordDict:
        """Let the sites train one round, and answer with what their updates add up to.

        Raises:
            ProtocolError: It is of a study that the region has not prepared for (HF-404), or too
                few sites answered (HF-403).
        """
        record = message.content.config_records[protocol.ORDER]
        order, prepared = RoundOrder.from_json(str(record["json"])), self.prepared
        if prepared is None or prepared.study.hash != str(record["study"]):
            raise ProtocolError(404, where="train message", seen="a study not prepared for")
        received = read(message.content.array_records[protocol.ARRAYS])
        current, collected = self._round(order, prepared, received)
        partial = self._partial(collected)
        row = history_row(current, collected, _groups(collected, partial), prepared.study)
        self.store.note_round(row)
        return RecordDict(
            {
                protocol.SITE: ConfigRecord(
                    {"site": str(context.node_config["site"]), "node": str(context.node_id)}
                ),
                protocol.ARRAYS: _one({n: a for s in partial.sums.values() for n, a in s.items()}),
                protocol.WEIGHTS: MetricRecord(dict(partial.weights)),
                protocol.METRICS: MetricRecord(dict(collected.metrics)),
            }
        )

    def _round(
        self, order: RoundOrder, prepared: _RegionalStudy, received: Arrays
    ) -> tuple[OpenRound, Collected]:
        sites, federation = prepared.orders.sites, prepared.study.config.federation
        current = OpenRound(
            order.round,
            order.rounds,
            {name: groups_held(site.modalities, order.groups) for name, site in sites.items()},
            self.store,
            ignore_progress,
            train=order.train,
            most_weight=order.most_weight,
            others_weight={n: order.most_weight - site.n_subjects for n, site in sites.items()},
            clock=self.exchange.clock,
        )
        model = {name: received[name] for name in received}
        schema = UpdateSchema.of(model, federation.aggregation.max_update_norm)
        prepared.orders.prepare_again(tuple(sorted(sites)))
        state = ServerState(order.round - 1, model, OptimizerState())
        collected = prepared.transport.collect(current, state, schema)
        answered = len(current.metrics)
        if answered < quorum_of(len(sites), federation.quorum):
            raise too_few(f"round {order.round}", len(sites), answered, current.rejected)
        return current, collected

    def _partial(self, collected: Collected) -> PartialSums:
        if not isinstance(collected.results, WeightedMean):
            raise ProtocolError(
                402,
                where="regional coordinator",
                seen="a study whose updates cannot be added up region by region",
                wanted="federation.aggregation.method=weighted_mean, without secure sums",
            )
        return collected.results.partial()

    def _at_work(self, study: Study, sites: Mapping[str, RegisteredSite]) -> _RegionalStudy:
        federation = study.config.federation
        method = methods()[federation.aggregation.method]
        orders = Orders(study, sites, self.exchange, self.timeouts, ContractSigner())
        transport = ClearTransport(
            sites,
            self.exchange,
            self.timeouts,
            orders,
            method,
            federation.aggregation,
            uplink_compressor(federation.codec),
        )
        return _RegionalStudy(study, orders, transport)

    def _ask(self, kind: str, order: dict[str, Any]) -> list[Message]:
        contents = {
            node: RecordDict({protocol.ORDER: ConfigRecord(dict(order))})
            for node in sorted(self.grid.get_node_ids())
        }
        return list(self.exchange(contents, kind, "region", self.timeouts))

    def _coverage(self, sites: Mapping[str, RegisteredSite]) -> dict[str, float]:
        """Return each number of coverage as its mean over the people of the sites that tell it."""
        told = [event for event in self.store.events() if event["event"] == "prepared"]
        terms: dict[str, list[tuple[float, float]]] = {}
        for event in told[-len(sites) :]:
            people = float(sites[event["site"]].n_subjects)
            for name, value in event["coverage"].items():
                terms.setdefault(name, []).append((people, float(value)))
        return {
            name: sum(n * value for n, value in each) / sum(n for n, _ in each)
            for name, each in terms.items()
        }


def _answered(reply: Message) -> tuple[RegisteredSite, Arrays]:
    if reply.has_error():
        raise ValueError(reply.error.reason or f"the node failed with code {reply.error.code}")
    records = reply.content
    site = read_site(records.config_records[protocol.SITE], reply.metadata.src_node_id)
    return site, read(records.array_records[protocol.ARRAYS])


def _record(sites: list[RegisteredSite], context: Context) -> ConfigRecord:
    """Return what the region says of itself."""
    held = set().union(*(site.modalities for site in sites))
    return ConfigRecord(
        {
            "version": protocol.VERSION,
            "site": str(context.node_config["site"]),
            "node": str(context.node_id),
            "modalities": json.dumps(sorted(held)),
            "subjects": sum(site.n_subjects for site in sites),
            protocol.REGION_SITES: len(sites),
        }
    )


def _groups(collected: Collected, partial: PartialSums) -> dict[str, dict[str, Any]]:
    return {
        group: {"sites": tally.sites, "weight": tally.weight, **tally.details}
        for group, tally in collected.tallies.items()
        if group in partial.weights
    }


def _one(arrays: Arrays) -> ArrayRecord:
    data = wire.bundle(arrays)
    return ArrayRecord({"sums": Array("|u1", (len(data),), wire.BUNDLE, data)})
