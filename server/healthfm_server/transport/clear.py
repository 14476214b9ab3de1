"""Updates in the clear: each is checked the moment it arrives, and added.

A site gets the parameters of the groups that it holds and no others. A reply that does not fit is
rejected with a reason, and the round goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from flwr.app import Message, RecordDict

from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.errors import TrustError
from healthfm_core.federation import protocol
from healthfm_core.federation.aggregation.aggregator import (
    AggregationMethod,
    put_in_slot,
)
from healthfm_core.federation.contracting import METRICS_WANTED
from healthfm_core.federation.influence_bounds import running_medians
from healthfm_core.federation.parameter_groups import BACKBONE, groups_held
from healthfm_core.federation.update_checks import UpdateSchema, check_update
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.study_setup.registered_sites import RegisteredSite, check_sender
from healthfm_server.transport.array_file import MappedArrays
from healthfm_server.transport.array_records import digests_of, read, record_of, to_arrays
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import Collected, OpenRound
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
        people: Group → site → training subjects that it last said it has in it.
    """

    sites: Mapping[str, RegisteredSite]
    exchange: Exchange
    timeouts: Timeouts
    orders: Orders
    method: AggregationMethod
    config: AggregationConfig
    people: dict[str, dict[str, float]] = field(default_factory=dict)

    def groups(self, site: RegisteredSite, schema: UpdateSchema) -> tuple[str, ...]:
        """Return the groups that `site` holds."""
        return groups_held(site.modalities, schema.groups)

    def collect(self, current: OpenRound, state: ServerState, schema: UpdateSchema) -> Collected:
        """Send every site its order, and add each update the moment it arrives."""
        sizes = [self.sites[name].n_subjects for name in current.asked]
        inbox = RoundInbox(
            current,
            schema,
            self.config,
            self.method.aggregator(schema, self.config, float(sum(sizes))),
            running_medians(current.store.history()),
            self.people,
        )
        busy = self.exchange.busy()
        asked = [
            name
            for name in current.asked
            if self.sites[name].node_id not in busy and name not in self.orders.unprepared
        ]
        for reply in self.exchange(
            self._contents(current, asked, state, schema),
            protocol.TRAIN,
            str(current.number),
            self.timeouts,
        ):
            self._take(reply, current, schema, inbox)
            del reply
        inbox.close()
        for site in sorted(current.asked.keys() - current.metrics.keys() - current.rejected.keys()):
            late = "it did not answer in time" if site in asked else "it was busy"
            current.reject(site, late, replied=False)
        return self._collected(current, inbox)

    def _contents(
        self, current: OpenRound, asked: list[str], state: ServerState, schema: UpdateSchema
    ) -> dict[int, RecordDict]:
        kept = self.method.control_variates
        beside = {} if kept is None else put_in_slot(kept.slot, state.control_variates)
        arrays = to_arrays({**state.parameters, **beside})
        if isinstance(state.parameters, MappedArrays):
            state.parameters.release()
        digests = digests_of(arrays)
        contents = {}
        for name in asked:
            groups = current.asked[name]
            names = (name for group in groups for name in schema.groups[group])
            contents[self.sites[name].node_id] = self.orders.to_train(
                current, name, record_of(arrays, names), digests
            )
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
        try:
            records = reply.content
            check_sender(records.config_records[protocol.SITE], self.sites[site])
            update = read(records.array_records[protocol.ARRAYS])
            weights = {g: _number(w) for g, w in records.metric_records[protocol.WEIGHTS].items()}
            metrics = _metrics(records.metric_records[protocol.METRICS])
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

    def _collected(self, current: OpenRound, inbox: RoundInbox) -> Collected:
        subjects = {
            site: weights.get(BACKBONE) or max(weights.values())
            for site, weights in inbox.weights.items()
        }
        return Collected(
            results=inbox.aggregator,
            tallies=inbox.tallies(),
            metrics=mean_metrics(current.metrics, subjects),
            site_metrics=current.metrics,
        )


class _RejectedReplyError(Exception):
    """A reply that cannot be used; the text says why."""


def mean_metrics(
    metrics: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> dict[str, float]:
    """Return each metric's mean over the sites that report it, weighted, in the sites' order.

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
        if total > 0:
            means[name] = math.fsum(w * v for w, v in terms[name]) / total
    return means


def _metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a reply that anybody asked for; a site may send what it likes."""
    wanted = (m for m in record if any(fnmatchcase(m, pattern) for pattern in METRICS_WANTED))
    metrics = {m: _number(record[m]) for m in wanted if len(m) <= LONGEST_NAME}
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"{len(metrics)} metrics, of {MOST_METRICS} at most")
    return metrics


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a value is not a number")
    return float(value)
