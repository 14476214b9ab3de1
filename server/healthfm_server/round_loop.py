"""The round loop: sample sites, collect their updates, aggregate each group, step, checkpoint.

Which algorithm aggregates and how updates travel is given to it. A group that fewer than the quorum
of its sites moved keeps its weights and its moments bit for bit; when fewer than the quorum of all
sites answered, the round is not closed and the run can be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from healthfm_core.arrays import ArrayDict
from healthfm_core.federation.aggregation.aggregator import AggregationMethod
from healthfm_core.federation.aggregation.per_code_mean import per_code_mean
from healthfm_core.federation.aggregation.server_optimizer import apply_means
from healthfm_core.federation.parameter_groups import group_of, groups_held
from healthfm_core.federation.protocol import Study
from healthfm_core.federation.update_checks import UpdateSchema, update_norm
from healthfm_core.seeding import numpy_generator
from healthfm_server.round_history import history_row
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.run_progress import ProgressListener, ignore_progress
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_server.transport.exchange import too_few
from healthfm_server.transport.interface import Collected, OpenRound, Transport
from healthfm_server.transport.orders import Orders


class RoundLoop:
    """Federated averaging (McMahan et al. 2017), each parameter group over the sites that hold it.

    Args:
        study: What the sites agreed on.
        sites: Participating sites by name.
        method: The aggregation algorithm.
        transport: Brings orders to the sites and their updates back.
        orders: Sends the study again to the sites that lost it.
        store: Where checkpoints, history and events go.
        listener: Hears of every reply and every round.
    """

    def __init__(
        self,
        study: Study,
        sites: Mapping[str, RegisteredSite],
        method: AggregationMethod,
        transport: Transport,
        orders: Orders,
        store: RunStore,
        listener: ProgressListener = ignore_progress,
    ) -> None:
        self._study = study
        self._config = study.config.federation
        self._sites = sites
        self._method = method
        self._transport = transport
        self._orders = orders
        self._store = store
        self._listener = listener

    def run(self, state: ServerState) -> ServerState:
        """Run the rounds that are left after `state`; each ends with a checkpoint.

        Raises:
            ProtocolError: Too few sites answered in a round (HF-403).
        """
        while state.round < self._config.rounds:
            state = self.round(state)
        return state

    def round(self, state: ServerState) -> ServerState:
        """Run one round and return the state after it, which is on disk by then."""
        aggregation = self._config.aggregation
        schema = UpdateSchema.of(
            state.parameters, aggregation.max_update_norm, self._method.slots(aggregation)
        )
        sampled = self.sample(state.round + 1)
        current = self._open(state.round + 1, sampled, schema)
        self._orders.prepare_again(sampled)
        collected = self._transport.collect(current, state, schema)
        self._require_quorum(current)
        means, groups = self._aggregate(current, collected, schema)
        row = history_row(current, collected, groups, self._study)
        state = self._store.save(self._step(state, means, groups), row)
        current.close(row["metrics"])
        return state

    def sample(self, number: int) -> tuple[str, ...]:
        """Return the sites of round `number`, sorted: the same for the same seed and round."""
        names = sorted(self._sites)
        count = max(1, math.ceil(self._config.fraction * len(names)))
        order = numpy_generator(self._study.config.seed, "sample", number).permutation(len(names))
        return tuple(sorted(names[i] for i in order[:count]))

    def _open(self, number: int, sampled: tuple[str, ...], schema: UpdateSchema) -> OpenRound:
        asked = {name: self._transport.groups(self._sites[name], schema) for name in sampled}
        return OpenRound(number, self._config.rounds, asked, self._store, self._listener)

    def _require_quorum(self, current: OpenRound) -> None:
        asked, answered = len(current.asked), len(current.metrics)
        if answered < _quorum(asked, self._config.quorum):
            self._store.note("quorum missed", round=current.number, asked=asked, answered=answered)
            raise too_few(f"round {current.number}", asked, answered, current.rejected)

    def _aggregate(
        self, current: OpenRound, collected: Collected, schema: UpdateSchema
    ) -> tuple[ArrayDict, dict[str, dict[str, Any]]]:
        """Return the mean changes of the groups that move, and what history says of each."""
        means: ArrayDict = {}
        groups: dict[str, dict[str, Any]] = {}
        for group in schema.groups:
            tally = collected.tallies.get(group)
            if tally is None or not self._may_move(group, tally.sites, current, collected):
                self._note_kept(group, 0 if tally is None else tally.sites, current)
                continue
            mean = collected.results.result(group)
            norm = update_norm(mean, [name for name in mean if "/" not in name])
            about = {"sites": tally.sites, "weight": tally.weight, "norm": norm}
            groups[group] = {**about, **tally.details}
            means |= mean
            del mean
        return means, groups

    def _may_move(
        self, group: str, answered: int, current: OpenRound, collected: Collected
    ) -> bool:
        enough = answered >= _quorum(_holders(group, current), self._config.quorum)
        return enough and collected.results.has_enough_sites(group)

    def _note_kept(self, group: str, answered: int, current: OpenRound) -> None:
        if holders := _holders(group, current):
            reason = f"{answered} of {holders} sites moved it" if answered else "no site moved it"
            self._store.note("group kept", round=current.number, group=group, reason=reason)

    def _step(
        self, state: ServerState, means: ArrayDict, groups: Mapping[str, Mapping[str, Any]]
    ) -> ServerState:
        """Return the state after one step along the means, which are used up."""
        control = self._control_variates(state, means, groups)
        if self._config.aggregation.code_rows == "their_sites":
            means |= per_code_mean(means, self._study.vocabulary)
        parameters, optimizer = apply_means(
            state.parameters, state.optimizer, means, self._config.aggregation.server_optimizer
        )
        return ServerState(state.round + 1, parameters, optimizer, control)

    def _control_variates(
        self, state: ServerState, means: ArrayDict, groups: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return the algorithm's state after the round; its means are taken out of `means`."""
        kept = self._method.control_variates
        if kept is None:
            return state.control_variates
        prefix = f"{kept.slot}/"
        changes = {
            name.removeprefix(prefix): means.pop(name)
            for name in sorted(means)
            if name.startswith(prefix)
        }
        return kept.server_state(state.control_variates, changes, self._fractions(changes, groups))

    def _fractions(
        self, changes: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, float]:
        """Return, for each parameter, the share of the sites that hold it that moved it."""
        held = [groups_held(site.modalities, groups) for site in self._sites.values()]
        share = {g: row["sites"] / sum(g in own for own in held) for g, row in groups.items()}
        return {name: share[group_of(name)] for name in changes}


def _holders(group: str, current: OpenRound) -> int:
    return sum(group in groups for groups in current.asked.values())


def _quorum(sites: int, share: float) -> int:
    return max(1, math.ceil(share * sites - 1e-9))
