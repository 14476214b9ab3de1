"""Updates in the clear: each is checked the moment it arrives, and added.

A site gets the parameters of the groups that it holds and no others. A reply that does not fit is
rejected with a reason, and the round goes on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import Any, Final

from flwr.app import Message, RecordDict

from healthfm_core.arrays import Arrays
from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.errors import TrustError
from healthfm_core.federation import protocol
from healthfm_core.federation.aggregation.aggregator import (
    AggregationMethod,
    put_in_slot,
)
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.compression.error_feedback import counted_rounds
from healthfm_core.federation.contracting import METRICS_WANTED
from healthfm_core.federation.influence_bounds import running_medians
from healthfm_core.federation.metric_names import is_count
from healthfm_core.federation.parameter_groups import BACKBONE, groups_held
from healthfm_core.federation.update_checks import UpdateSchema, check_update
from healthfm_core.seeding import seed_for
from healthfm_core.training.schedule import round_rate
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.study_setup.registered_sites import RegisteredSite, check_sender
from healthfm_server.transport.array_file import MappedArrays
from healthfm_server.transport.array_records import read
from healthfm_server.transport.downlink import LACKS_THE_MODEL, Downlink, holders_of
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import Collected, OpenRound
from healthfm_server.transport.measured_deadline import measured_timeouts
from healthfm_server.transport.orders import Orders
from healthfm_server.transport.round_inbox import RoundInbox

_NEEDS_THE_STUDY: Final = frozenset({404, 816})
"""Codes of a site that has to get the study, and with it a new contract, before it goes on."""
MOST_METRICS: Final = 1000
LONGEST_NAME: Final = 200
"""Characters of a metric's name."""
LARGEST_METRIC: Final = 1e100
"""A sum of these over all people of all sites is a number still."""


@dataclass(frozen=True)
class ClearTransport:
    """Sends orders and takes updates as they are.

    Attributes:
        sites: Participating sites by name.
        exchange: Sends and receives.
        timeouts: Deadline and life of messages.
        orders: Writes the orders.
        method: The aggregation algorithm.
        config: Its settings.
        uplink: How updates are encoded; None: they are float32.
        downlink: How changes of the model are; None: it travels whole.
        people: Group → site → training subjects that it last said it has in it.
    """

    sites: Mapping[str, RegisteredSite]
    exchange: Exchange
    timeouts: Timeouts
    orders: Orders
    method: AggregationMethod
    config: AggregationConfig
    uplink: Compressor | None = None
    downlink: Compressor | None = None
    people: dict[str, dict[str, float]] = field(default_factory=dict)

    def groups(self, site: RegisteredSite, schema: UpdateSchema) -> tuple[str, ...]:
        """Return the groups that `site` holds."""
        return groups_held(site.modalities, schema.groups)

    def collect(self, current: OpenRound, state: ServerState, schema: UpdateSchema) -> Collected:
        """Send every site its order, and add each update the moment it arrives."""
        inbox = RoundInbox(
            current,
            schema,
            self.config,
            self.method.aggregator(schema, self.config, self._most_weight(current)),
            self._usual_norms(current),
            self.people,
        )
        busy = self.exchange.busy()
        asked = [
            name
            for name in current.asked
            if self.sites[name].node_id not in busy and name not in self.orders.unprepared
        ]
        down = self._down(current, asked, state, schema)
        timeouts = self._timeouts(current)
        for reply in self._replies(current, asked, down, timeouts):
            self._take(reply, current, schema, inbox)
            del reply
        inbox.close()
        for site in sorted(current.asked.keys() - current.metrics.keys() - current.rejected.keys()):
            late = "it did not answer in time" if site in asked else "it was busy"
            current.reject(site, late, replied=False)
        reference = {} if self.downlink is None else down.model
        return replace(self._collected(current, inbox), reference=reference)

    def _timeouts(self, current: OpenRound) -> Timeouts:
        federation = self.orders.study.config.federation
        return measured_timeouts(self.timeouts, federation, current.store, self.exchange)

    def _most_weight(self, current: OpenRound) -> float:
        """Return the most weight that a group can get in this round."""
        if current.most_weight is not None:
            return current.most_weight
        return float(sum(self.sites[name].n_subjects for name in current.asked))

    def _usual_norms(self, current: OpenRound) -> dict[str, float]:
        """Return group → the norm that an update of this round usually has."""
        train = self.orders.study.config.train
        rate = cache(lambda number: round_rate(train, number, current.rounds))
        return running_medians(self._alike(current), rate, current.number)

    def _alike(self, current: OpenRound) -> list[dict[str, Any]]:
        """Return the rows of earlier rounds whose updates are of the kind of this round's.

        A gradient is not of the length of what local steps change.
        """
        train, rows = self.orders.study.config.train, current.store.history()
        kind = train.is_regression(current.number, current.rounds)
        return [row for row in rows if train.is_regression(row["round"], current.rounds) == kind]

    def _down(
        self, current: OpenRound, asked: list[str], state: ServerState, schema: UpdateSchema
    ) -> Downlink:
        """Return how the model goes down in this round."""
        kept = self.method.control_variates
        if self.downlink is None:
            beside = {} if kept is None else put_in_slot(kept.slot, state.control_variates)
            return Downlink(state.parameters, beside)
        seed = seed_for(self.orders.study.config.seed, "downlink", current.number)
        holders = holders_of(state, current, asked)
        return Downlink.of(state, schema.groups, holders, self.downlink, seed)

    def _replies(
        self, current: OpenRound, asked: list[str], down: Downlink, timeouts: Timeouts
    ) -> Iterator[Message]:
        """Yield each site's reply; who lacks what a change is of is asked again, with the whole."""
        lacking: list[str] = []
        nodes = {self.sites[name].node_id: name for name in down.holders}
        exchange = partial(self.exchange, kind=protocol.TRAIN, group=str(current.number))
        contents = partial(self._contents, current)
        for reply in exchange(contents(asked, down), timeouts=timeouts):
            site = nodes.get(reply.metadata.src_node_id)
            if site and reply.has_error() and reply.error.code == LACKS_THE_MODEL:
                current.store.note("model sent whole", round=current.number, site=site)
                lacking.append(site)
            else:
                yield reply
            del reply
        if lacking:
            whole = replace(down, holders=frozenset())
            yield from exchange(contents(lacking, whole), timeouts=timeouts)

    def _contents(
        self, current: OpenRound, asked: list[str], down: Downlink
    ) -> dict[int, RecordDict]:
        counted = {} if self.uplink is None else counted_rounds(current.store.history())
        held = {site in down.holders for site in asked}
        pieces = {one: down.pieces(held=one) for one in held}
        if isinstance(down.model, MappedArrays):
            down.model.release()
        contents = {}
        for site in asked:
            groups, sent = current.asked[site], pieces[site in down.holders]
            rounds = {g: n for g, n in counted.get(site, {}).items() if g in groups}
            record = sent.record(groups)
            more = {**sent.fields(groups), "counted": rounds}
            if self.sites[site].sites:
                more["most_weight"] = self._most_weight(current)
            order = self.orders.to_train(current, site, record, sent.digests, more=more)
            contents[self.sites[site].node_id] = order
            current.bytes_down += sum(len(array.data) for array in record.values())
        return contents

    def _take(
        self, reply: Message, current: OpenRound, schema: UpdateSchema, inbox: RoundInbox
    ) -> None:
        nodes = {self.sites[name].node_id: name for name in current.asked}
        site = nodes.get(reply.metadata.src_node_id)
        if site is None:
            current.store.note("reply of an unknown node dropped", round=current.number)
            return
        try:
            metrics = self._add(reply, site, current, schema, inbox)
        except _RejectedReplyError as reason:
            current.reject(site, str(reason))
        else:
            current.accept(site, metrics)

    def _add(
        self, reply: Message, site: str, current: OpenRound, schema: UpdateSchema, inbox: RoundInbox
    ) -> dict[str, float]:
        """Add a reply's update to the aggregator and return its metrics."""
        if reply.has_error():
            if reply.error.code in _NEEDS_THE_STUDY:
                self.orders.unprepared.add(site)
            raise _RejectedReplyError(
                reply.error.reason or f"the node failed with code {reply.error.code}"
            )
        if self.sites[site].sites:
            return self._add_region(reply, site, current, inbox)
        try:
            records = reply.content
            check_sender(records.config_records[protocol.SITE], self.sites[site])
            arrays = records.array_records[protocol.ARRAYS]
            received = read(arrays)
            current.bytes_up += sum(len(array.data) for array in arrays.values())
            weights = {g: _number(w) for g, w in records.metric_records[protocol.WEIGHTS].items()}
            metrics = read_metrics(records.metric_records[protocol.METRICS])
            update = self._decoded(received, weights, schema)
        except TrustError as error:
            raise _RejectedReplyError(str(error)) from error
        except (KeyError, ValueError, TypeError) as error:
            raise _RejectedReplyError(f"its records cannot be read: {error}"[:200]) from error
        reason = check_update(
            update,
            weights,
            schema,
            asked=current.asked[site],
            n_subjects=self.sites[site].n_subjects,
        )
        losses = [name for name in sorted(metrics) if name.startswith("loss_")]
        lost = next((name for name in losses if not math.isfinite(metrics[name])), None)
        if reason is None and lost is not None:
            reason = f"{lost[:80]} is not finite"
        if reason is not None:
            raise _RejectedReplyError(reason)
        inbox.take(site, update, weights)
        return metrics

    def _add_region(
        self, reply: Message, site: str, current: OpenRound, inbox: RoundInbox
    ) -> dict[str, float]:
        """Add what a regional coordinator's sites add up to, and return their metrics."""
        try:
            records = reply.content
            check_sender(records.config_records[protocol.SITE], self.sites[site])
            arrays = records.array_records[protocol.ARRAYS]
            received = read(arrays)
            current.bytes_up += sum(len(array.data) for array in arrays.values())
            weights = {g: _number(w) for g, w in records.metric_records[protocol.WEIGHTS].items()}
            metrics = read_metrics(records.metric_records[protocol.METRICS])
            inbox.take_sums(site, received, weights, self.sites[site].n_subjects)
        except (TrustError, KeyError, ValueError, TypeError) as error:
            raise _RejectedReplyError(f"its sums cannot be used: {error}"[:300]) from error
        return metrics

    def _decoded(self, received: Arrays, weights: Collection[str], schema: UpdateSchema) -> Arrays:
        """Return the parameters of a reply, which are decoded one at a time as they are read.

        Raises:
            ValueError: They are not encoded as the run says.
        """
        if self.uplink is None:
            return received
        groups = {group: names for group, names in schema.groups.items() if group in weights}
        return self.uplink.decode(groups, schema.shapes, received)

    def _collected(self, current: OpenRound, inbox: RoundInbox) -> Collected:
        subjects = {
            site: weights.get(BACKBONE) or max(weights.values())
            for site, weights in inbox.weights.items()
        }
        return Collected(
            results=inbox.aggregator,
            tallies=inbox.tallies(),
            metrics=metrics_of_all(current.metrics, subjects),
            site_metrics=current.metrics,
        )


class _RejectedReplyError(Exception):
    """A reply that cannot be used; the text says why."""


def metrics_of_all(
    metrics: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> dict[str, float]:
    """Return each metric's weighted mean over the sites that report it; people are added up.

    Args:
        metrics: Site → metric → value; those that are not finite, or that no mean could hold, are
            left out.
        weights: Site → training subjects.
    """
    terms: dict[str, list[tuple[float, float]]] = {}
    for site in sorted(metrics):
        for name, value in metrics[site].items():
            if abs(value) < LARGEST_METRIC:
                terms.setdefault(name, []).append((weights.get(site, 0.0), value))
    means = {}
    for name in sorted(terms):
        total = math.fsum(w for w, _ in terms[name])
        if is_count(name):
            means[name] = math.fsum(v for _, v in terms[name])
        elif total > 0:
            means[name] = math.fsum(w * v for w, v in terms[name]) / total
    return means


def read_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a reply that anybody asked for; a site may send what it likes.

    Raises:
        TypeError: One is no number.
        ValueError: They are too many.
    """
    wanted = (m for m in record if any(fnmatchcase(m, pattern) for pattern in METRICS_WANTED))
    metrics = {m: _number(record[m]) for m in wanted if len(m) <= LONGEST_NAME}
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"{len(metrics)} metrics, of {MOST_METRICS} at most")
    return metrics


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a value is not a number")
    return float(value)
