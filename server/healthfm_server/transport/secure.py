"""Rounds whose updates the coordinator sees as a sum: the same loop over masked replies.

Every site gets the parameters of every group, so that neither messages nor sums tell which
modality a site has. Weights, metrics and whether an update was shortened come out of the same sum.
"""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import Any

from flwr.app import Message, RecordDict

from healthfm_core.federation import protocol
from healthfm_core.federation.aggregation.weighted_mean import Fold
from healthfm_core.federation.secure.clipped_sum_codec import GradientLayout
from healthfm_core.federation.secure.noisy_update_codec import NoisyLayout, round_layout
from healthfm_core.federation.secure.update_codec import RoundLayout, RoundSum
from healthfm_core.federation.update_checks import Contract, update_norm
from healthfm_core.privacy.distributed import epsilon_of
from healthfm_server.round_loop import ModalityFedAvg, Round
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.transport.array_records import digests_of, record_of, to_arrays
from healthfm_server.transport.secure_session import MaskedExchange, Summing


class MaskedFedAvg(ModalityFedAvg):
    """Federated averaging of each parameter group over sums that no site can be told from."""

    def round(self, state: ServerState) -> ServerState:
        """Run one round and return the state after it, which is on disk by then."""
        contract = Contract.of(state.parameters, self._config.aggregation.max_update_norm)
        sampled = self.sample(state.round + 1)
        asked = {name: tuple(contract.groups) for name in sampled}
        current = Round(state.round + 1, asked, Fold(contract, 1.0), time.monotonic())
        self._prepare_again(sampled)
        summing = self._summing(current)
        exchange = self._masked
        book = exchange.agree(summing)
        capacity = sum(self._sites[name].n_subjects for name in book.adverts)
        layout = round_layout(self._study, contract, book, capacity)
        summing.server.sizes(layout.sizes())
        arrays = to_arrays(state.parameters)
        record, digests = record_of(arrays, state.parameters), digests_of(arrays)

        def contents(site: str) -> RecordDict:
            return self._content(self._order(current, site), record, digests)

        more = {"capacity": capacity}
        sums = exchange.sum(summing, protocol.TRAIN, contents, more)
        return self._close_sum(current, state, layout, layout.decode(sums))

    @cached_property
    def _masked(self) -> MaskedExchange:
        factor = self._patience.deadline_s / self._config.deadline_s
        config = self._config.aggregation.secure
        return MaskedExchange(
            self._exchange, self._patience, config, factor * config.message_timeout_s
        )

    def _summing(self, current: Round) -> Summing:
        names = {self._sites[name].node_id: name for name in current.asked}
        terms = self._masked.terms(self._study.hash, "round", current.number)

        def done(site: str, reply: Message) -> None:
            current.metrics[site] = {}
            self._tell("site", current, site)

        def set_aside(site: str, reason: str) -> None:
            current.set_aside[site] = reason
            if "HF-404" in reason:
                self._unprepared.add(site)
            self._store.note("set aside", round=current.number, site=site, reason=reason)
            self._tell("site", current, site)

        return self._masked.begin(terms, names, done, set_aside)

    def _close_sum(
        self, current: Round, state: ServerState, layout: RoundLayout, found: RoundSum
    ) -> ServerState:
        answered = len(current.metrics)
        self._require_quorum(current, answered)
        means: dict[str, Any] = {}
        groups: dict[str, Any] = {}
        for group, mean in found.means.items():
            groups[group] = {
                "sites": answered,
                "weight": found.weights[group],
                "norm": update_norm(mean, mean),
                "clipped_sites": found.clipped.get(group),
            }
            means |= mean
        for group in sorted(layout.contract.groups.keys() - groups.keys()):
            self._store.note(
                "group kept", round=current.number, group=group, reason="no site moved it"
            )
        row = self._row(current, groups)
        row["metrics"] = {k: v for k, v in sorted(found.metrics.items()) if math.isfinite(v)}
        row["site_metrics"] = {}
        if isinstance(layout, NoisyLayout | GradientLayout):
            row["privacy"] = self._spent(layout.rho)
        return self._finish(current, state, means, row)

    def _spent(self, rho: float) -> dict[str, float | str]:
        """Return what the rounds up to this one cost, of which the last costs `rho`."""
        sums, privacy = self._config.aggregation.secure, self._study.config.privacy
        shared, before = privacy.mechanism.noise_in_sum, self._store.history()
        rho += before[-1]["privacy"]["rho"] if before else 0.0
        delta = privacy.delta if shared else sums.delta
        unit = "subject" if shared else sums.unit
        return {"rho": rho, "epsilon": epsilon_of(rho, delta), "delta": delta, "unit": unit}
