"""The round loop: sample sites, collect their updates, aggregate each group, step, checkpoint.

Which algorithm aggregates and how updates travel is given to it. A group that fewer than the quorum
of its sites moved keeps its weights and its moments bit for bit; when fewer than the quorum of all
sites answered, the round is not closed and the run can be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from healthfm_core.arrays import ArrayDict
from healthfm_core.errors import RunError
from healthfm_core.federation.aggregation.aggregator import AggregationMethod
from healthfm_core.federation.aggregation.per_code_mean import per_code_mean
from healthfm_core.federation.aggregation.regression_step import regression_step
from healthfm_core.federation.aggregation.server_optimizer import apply_means
from healthfm_core.federation.early_stopping import (
    best_round,
    chosen_round,
    is_out_of_patience,
    scores_of,
)
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


@dataclass(frozen=True)
class RoundLoop:
    """Federated averaging (McMahan et al. 2017), each parameter group over the sites that hold it.

    Attributes:
        study: What the sites agreed on.
        sites: Participating sites by name.
        method: The aggregation algorithm.
        transport: Brings orders to the sites and their updates back.
        orders: Sends the study again to the sites that lost it.
        store: Where checkpoints, history and events go.
        listener: Hears of every reply and every round.
    """

    study: Study
    sites: Mapping[str, RegisteredSite]
    method: AggregationMethod
    transport: Transport
    orders: Orders
    store: RunStore
    listener: ProgressListener = ignore_progress

    def run(self, state: ServerState) -> ServerState:
        """Run the rounds that are left after `state`; each ends with a checkpoint.

        Returns:
            The last round's state, whichever round's model the run ends with (`RunStore.result`).

        Raises:
            ProtocolError: Too few sites answered in a round (HF-403).
            RunError: Training diverged (HF-726).
        """
        federation = self.study.config.federation
        early = federation.early_stopping
        while state.round < federation.rounds:
            if early.patience is not None and self._has_stopped():
                break
            state = self.round(state)
        if early.monitor is not None:
            self._choose(state)
        return state

    def round(self, state: ServerState) -> ServerState:
        """Run one round and return the state after it, which is on disk by then."""
        schema = self._schema(state)
        number, rounds = state.round + 1, self.study.config.federation.rounds
        sampled = self.sample(number)
        asked = {name: self.transport.groups(self.sites[name], schema) for name in sampled}
        clock = self.orders.exchange.clock
        current = OpenRound(number, rounds, asked, self.store, self.listener, clock=clock)
        self.orders.prepare_again(sampled)
        collected = self.transport.collect(current, state, schema)
        n_asked, answered = len(asked), len(current.metrics)
        if answered < quorum_of(n_asked, self.study.config.federation.quorum):
            self.store.note("quorum missed", round=number, asked=n_asked, answered=answered)
            raise too_few(f"round {number}", n_asked, answered, current.rejected)
        means, groups = self._aggregate(current, collected, schema)
        row = history_row(current, collected, groups, self.study)
        after = replace(self._step(state, means, groups), reference=collected.reference)
        _refuse_divergence(after)
        early = self.study.config.federation.early_stopping
        best = self._best_so_far(row) if early.monitor is not None and early.restore_best else None
        state = self.store.save(after, row, keep=best)
        current.close(row["metrics"])
        return state

    def _best_so_far(self, row: Mapping[str, Any]) -> int | None:
        """Return the best round's number, whose checkpoint is not to be removed."""
        config = self.study.config.federation.early_stopping
        scores = scores_of([*self.store.history(), row], str(config.monitor))
        return best_round(scores, config.min_delta)

    def _has_stopped(self) -> bool:
        """Return whether the rounds so far have run out of patience."""
        config = self.study.config.federation.early_stopping
        scores = scores_of(self.store.history(), str(config.monitor))
        return is_out_of_patience(scores, config)

    def _choose(self, state: ServerState) -> None:
        """Write which round's model the run ends with, unless that is written already."""
        federation = self.study.config.federation
        config = federation.early_stopping
        if config.monitor is None or self.store.choice() is not None:
            return
        scores = scores_of(self.store.history(), config.monitor)
        if state.round == federation.rounds and scores:
            scores |= self._score_of_last(state, config.monitor)
        choice = chosen_round(scores, config, trained=state.round, rounds=federation.rounds)
        self.store.save_choice(choice)
        self.store.note("round chosen", round=choice.round, reason=choice.sentence())

    def _score_of_last(self, state: ServerState, monitor: str) -> dict[int, float]:
        """Ask the sites to score the model after the last round; nobody trains."""
        number, rounds = state.round + 1, self.study.config.federation.rounds
        schema = self._schema(state)
        sampled = self.sample(number)
        asked = {name: self.transport.groups(self.sites[name], schema) for name in sampled}
        self.orders.prepare_again(sampled)
        clock = self.orders.exchange.clock
        scoring = OpenRound(
            number, rounds, asked, self.store, ignore_progress, train=False, clock=clock
        )
        metrics = self.transport.collect(scoring, state, schema).metrics
        return {state.round: metrics[monitor]} if monitor in metrics else {}

    def _schema(self, state: ServerState) -> UpdateSchema:
        aggregation = self.study.config.federation.aggregation
        slots = self.method.slots(aggregation)
        return UpdateSchema.of(state.parameters, aggregation.max_update_norm, slots)

    def sample(self, number: int) -> tuple[str, ...]:
        """Return the sites of round `number`, sorted: the same for the same seed and round."""
        config = self.study.config
        return sampled_sites(self.sites, config.federation.fraction, config.seed, number)

    def _aggregate(
        self, current: OpenRound, collected: Collected, schema: UpdateSchema
    ) -> tuple[ArrayDict, dict[str, dict[str, Any]]]:
        """Return the mean changes of the groups that move, and what history says of each."""
        means: ArrayDict = {}
        groups: dict[str, dict[str, Any]] = {}
        for group in schema.groups:
            tally = collected.tallies.get(group)
            answered = 0 if tally is None else tally.sites
            holders = sum(group in asked for asked in current.asked.values())
            enough = answered >= quorum_of(holders, self.study.config.federation.quorum)
            if tally is None or not enough or not collected.results.has_enough_sites(group):
                self._note_kept(group, answered, holders, current)
                continue
            mean = collected.results.result(group)
            norm = update_norm(mean, [name for name in mean if "/" not in name])
            about = {"sites": tally.sites, "weight": tally.weight, "norm": norm}
            groups[group] = {**about, **tally.details}
            means |= mean
            del mean
        return means, groups

    def _note_kept(self, group: str, answered: int, holders: int, current: OpenRound) -> None:
        if holders:
            reason = f"{answered} of {holders} sites moved it" if answered else "no site moved it"
            self.store.note("group kept", round=current.number, group=group, reason=reason)

    def _step(
        self, state: ServerState, means: ArrayDict, groups: Mapping[str, Mapping[str, Any]]
    ) -> ServerState:
        """Return the state after one step along the means, which are used up."""
        config = self.study.config
        aggregation = config.federation.aggregation
        if config.train.is_regression(state.round + 1, config.federation.rounds):
            return self._regression_step(state, means, groups)
        control = self._control_variates(state, means, groups)
        if aggregation.code_rows == "their_sites":
            means |= per_code_mean(means, self.study.vocabulary)
        parameters, optimizer = apply_means(
            state.parameters, state.optimizer, means, aggregation.server_optimizer
        )
        return ServerState(state.round + 1, parameters, optimizer, control)

    def _regression_step(
        self, state: ServerState, means: ArrayDict, groups: Mapping[str, Mapping[str, Any]]
    ) -> ServerState:
        """Return the state after one step along the sites' summed gradients."""
        weights = {group: float(row["weight"]) for group, row in groups.items()}
        penalty = self.study.config.train.regression_penalty
        memory = state.optimizer.regression
        parameters, memory = regression_step(
            state.parameters, memory, means, weights, penalty=penalty
        )
        optimizer = replace(state.optimizer, regression=memory)
        return ServerState(state.round + 1, parameters, optimizer, state.control_variates)

    def _control_variates(
        self, state: ServerState, means: ArrayDict, groups: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return the algorithm's state after the round; its means are taken out of `means`."""
        kept = self.method.control_variates
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
        held = [groups_held(site.modalities, groups) for site in self.sites.values()]
        share = {g: row["sites"] / sum(g in own for own in held) for g, row in groups.items()}
        return {name: share[group_of(name)] for name in changes}


def _refuse_divergence(state: ServerState) -> None:
    """Refuse weights that are not finite before they are written.

    Raises:
        RunError: HF-726.
    """
    for name in sorted(state.parameters):
        if not math.isfinite(update_norm(state.parameters, [name])):
            raise RunError(726, where=f"round {state.round}", seen=f"{name} is not finite")


def sampled_sites(sites: Iterable[str], fraction: float, seed: int, number: int) -> tuple[str, ...]:
    """Return the sites of a round, sorted: the same for the same seed and round.

    Args:
        sites: Names of all.
        fraction: Share of them that a round asks.
        seed: The run's.
        number: Of the round.
    """
    names = sorted(sites)
    count = max(1, math.ceil(fraction * len(names)))
    order = numpy_generator(seed, "sample", number).permutation(len(names))
    return tuple(sorted(names[i] for i in order[:count]))


def quorum_of(sites: int, share: float) -> int:
    """Return how many of so many sites a share of them is, at least one."""
    return max(1, math.ceil(share * sites - 1e-9))
