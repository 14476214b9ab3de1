"""ModalityFedAvg: our own round loop, between Flower's messages and the pure aggregation.

A round asks each sampled site for the groups it holds, folds every reply the moment it arrives
and drops it. A reply that does not fit is set aside with a reason and the round goes on. A group
that fewer than the quorum of its sites moved keeps its weights and its moments bit for bit; when
fewer than the quorum of all sites answered, the round is not closed and the run can be resumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from healthfm_core.errors import ProtocolError, TrustError
from healthfm_core.federation import protocol
from healthfm_core.federation.aggregation.per_code_mean import over_their_sites
from healthfm_core.federation.aggregation.robust import RobustFold
from healthfm_core.federation.aggregation.server_optimizer import apply_means
from healthfm_core.federation.aggregation.weighted_mean import Fold, mean_metrics
from healthfm_core.federation.alarms import alarms, kind_of
from healthfm_core.federation.parameter_groups import BACKBONE, groups_held
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.federation.update_checks import Contract, check_update, update_norm
from healthfm_core.seeding import numpy_generator, seed_for
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.run_progress import ProgressEvent, ProgressListener, ignore_progress
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.study_setup.registered_sites import RegisteredSite, check_sender
from healthfm_server.transport.array_file import Mapped
from healthfm_server.transport.array_records import digests_of, read, record_of, to_arrays
from healthfm_server.transport.exchange import Exchange, Patience

_NEEDS_THE_STUDY: Final = frozenset({404, 816})
"""Codes of a site that has to get the study, and with it a new contract, before it goes on."""


@dataclass
class Round:
    """A round at work: who was asked what, and what came of it."""

    number: int
    asked: Mapping[str, tuple[str, ...]]
    fold: Fold
    started: float
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Sites that were dealt with."""
        return len(self.metrics) + len(self.set_aside)


class ModalityFedAvg:
    """Federated averaging of each parameter group over the sites that hold it.

    Args:
        study: The run's contract.
        sites: Participating sites by name.
        exchange: Sends and receives.
        store: Where checkpoints, history and events go.
        patience: Deadline and life of messages.
        listener: Hears of every reply and every round.
        signer: Signs the contract of a study that is sent again.
    """

    def __init__(
        self,
        study: Study,
        sites: Mapping[str, RegisteredSite],
        exchange: Exchange,
        store: RunStore,
        patience: Patience,
        listener: ProgressListener = ignore_progress,
        signer: ContractSigner | None = None,
    ) -> None:
        self._study = study
        self._config = study.config.federation
        self._sites = sites
        self._exchange = exchange
        self._store = store
        self._patience = patience
        self._listener = listener
        self._signer = signer or ContractSigner()
        self._unprepared: set[str] = set()

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
        contract = Contract.of(state.parameters, self._config.aggregation.max_update_norm)
        sampled = self.sample(state.round + 1)
        asked = {
            name: groups_held(self._sites[name].modalities, contract.groups) for name in sampled
        }
        most = float(sum(self._sites[name].n_subjects for name in sampled))
        method = self._config.aggregation
        weighted = method.method == "weighted_mean"
        fold = Fold(contract, most) if weighted else RobustFold(contract, method)
        current = Round(state.round + 1, asked, fold, time.monotonic())
        self._prepare_again(sampled)
        orders, kind = self._orders, protocol.TRAIN
        for reply in self._exchange(
            orders(current, state, contract), kind, str(current.number), self._patience
        ):
            self._take(reply, current, contract)
            del reply
        self._note_missing(current)
        return self._close(current, state, contract)

    def sample(self, number: int) -> tuple[str, ...]:
        """Return the sites of round `number`, sorted: the same for the same seed and round."""
        names = sorted(self._sites)
        count = max(1, math.ceil(self._config.fraction * len(names)))
        order = numpy_generator(self._study.config.seed, "sample", number).permutation(len(names))
        return tuple(sorted(names[i] for i in order[:count]))

    def _orders(
        self, current: Round, state: ServerState, contract: Contract
    ) -> dict[int, RecordDict]:
        arrays = to_arrays(state.parameters)
        if isinstance(state.parameters, Mapped):
            state.parameters.let_go()
        digests = digests_of(arrays)
        busy = self._exchange.busy()
        contents = {}
        for name, groups in current.asked.items():
            site = self._sites[name]
            if site.node_id in busy or name in self._unprepared:
                current.late.append(name)
                continue
            names = (name for group in groups for name in contract.groups[group])
            contents[site.node_id] = self._content(
                self._order(current, name), record_of(arrays, names), digests
            )
        return contents

    def _content(
        self, order: RoundOrder, arrays: ArrayRecord, digests: Mapping[str, str]
    ) -> RecordDict:
        """Return the records of one site's order, signed in a deployment."""
        fields = {"json": order.to_json(), "study": self._study.hash}
        sent = {piece: digests[piece] for piece in arrays}
        record = ConfigRecord(dict(self._signer.to_train(fields, sent)))
        return RecordDict({protocol.ORDER: record, protocol.ARRAYS: arrays})

    def _order(self, current: Round, site: str) -> RoundOrder:
        every = self._config.evaluate_every
        return RoundOrder(
            round=current.number,
            rounds=self._config.rounds,
            groups=current.asked[site],
            evaluate=every > 0 and (current.number - 1) % every == 0,
            seed=seed_for(self._study.config.seed, "round", current.number, site),
        )

    def _take(self, reply: Message, current: Round, contract: Contract) -> None:
        nodes = {self._sites[name].node_id: name for name in current.asked}
        site = nodes.get(reply.metadata.src_node_id)
        if site is None:
            self._store.note("reply of an unknown node dropped", round=current.number)
            return
        reason = self._fold(reply, site, current, contract)
        if reason is not None:
            current.set_aside[site] = reason
            self._store.note("set aside", round=current.number, site=site, reason=reason)
        self._tell("site", current, site)

    def _fold(self, reply: Message, site: str, current: Round, contract: Contract) -> str | None:
        """Fold a reply; return why it was not, if it was not."""
        if reply.has_error():
            if reply.error.code in _NEEDS_THE_STUDY:
                self._unprepared.add(site)
            return reply.error.reason or f"the node failed with code {reply.error.code}"
        try:
            records = reply.content
            check_sender(records.config_records[protocol.SITE], self._sites[site])
            update = read(records.array_records[protocol.ARRAYS])
            weights = {g: _number(w) for g, w in records.metric_records[protocol.WEIGHTS].items()}
            metrics = {m: _number(v) for m, v in records.metric_records[protocol.METRICS].items()}
        except TrustError as error:
            return str(error)
        except (KeyError, ValueError, TypeError) as error:
            return f"its records cannot be read: {error}"[:200]
        reason = check_update(
            update,
            weights,
            contract,
            asked=current.asked[site],
            n_subjects=self._sites[site].n_subjects,
        )
        if reason is None:
            current.fold.add(site, update, weights)
            current.metrics[site] = metrics
        return reason

    def _note_missing(self, current: Round) -> None:
        missing = current.asked.keys() - current.metrics.keys() - current.set_aside.keys()
        for site in sorted(missing):
            reason = "it was busy" if site in current.late else "it did not answer in time"
            current.set_aside[site] = reason
            self._store.note("set aside", round=current.number, site=site, reason=reason)

    def _close(self, current: Round, state: ServerState, contract: Contract) -> ServerState:
        self._require_quorum(current, len(current.metrics))
        moving = [group for group in contract.groups if self._has_quorum(group, current)]
        means: dict[str, Any] = {}
        groups: dict[str, Any] = {}
        for group in moving:
            weight, sites = current.fold.weight(group), current.fold.sites(group)
            mean = current.fold.mean(group)
            norm = update_norm(mean, mean)
            groups[group] = {"sites": len(sites), "weight": weight, "norm": norm}
            means |= mean
            del mean
        return self._finish(current, state, means, self._row(current, groups))

    def _require_quorum(self, current: Round, answered: int) -> None:
        asked = len(current.asked)
        if answered < _quorum(asked, self._config.quorum):
            self._store.note("quorum missed", round=current.number, asked=asked, answered=answered)
            raise too_few(f"round {current.number}", asked, answered, current.set_aside)

    def _finish(
        self, current: Round, state: ServerState, means: dict[str, Any], row: dict[str, Any]
    ) -> ServerState:
        """Step along the means, which are used up, write the checkpoint and tell."""
        if self._config.aggregation.code_rows == "their_sites":
            means |= over_their_sites(means, self._study.vocabulary)
        parameters, optimizer = apply_means(
            state.parameters, state.optimizer, means, self._config.aggregation.server_optimizer
        )
        new = ServerState(current.number, parameters, optimizer)
        self._raise_alarms(row)
        new = self._store.save(new, row)
        self._tell("round", current, metrics=row["metrics"])
        return new

    def _has_quorum(self, group: str, current: Round) -> bool:
        holders = sum(group in groups for groups in current.asked.values())
        answered = len(current.fold.sites(group))
        enough = answered >= _quorum(holders, self._config.quorum)
        enough = enough and current.fold.can_tell(group)
        if holders and not enough:
            self._store.note(
                "group kept",
                round=current.number,
                group=group,
                reason=f"{answered} of {holders} sites moved it",
            )
        return enough

    def _row(self, current: Round, groups: Mapping[str, Any]) -> dict[str, Any]:
        weights = {site: self._weight(site, current) for site in current.metrics}
        return {
            "round": current.number,
            "seconds": round(time.monotonic() - current.started, 3),
            "asked": sorted(current.asked),
            "answered": sorted(current.metrics),
            "set_aside": dict(sorted(current.set_aside.items())),
            "groups": groups,
            "metrics": mean_metrics(current.metrics, weights),
            "site_metrics": {
                site: {k: v for k, v in sorted(found.items()) if math.isfinite(v)}
                for site, found in sorted(current.metrics.items())
            },
        }

    def _raise_alarms(self, row: dict[str, Any]) -> None:
        """Put the alarms into the row, and those that the round before did not have on record."""
        before = self._store.history()
        row["alarms"] = alarms([*before, row])
        known = {kind_of(old) for old in (before[-1].get("alarms", []) if before else [])}
        for sentence in row["alarms"]:
            if kind_of(sentence) not in known:
                self._store.note("alarm", round=row["round"], reason=sentence)

    def _weight(self, site: str, current: Round) -> float:
        return current.fold.weight_of(site, BACKBONE) or float(self._sites[site].n_subjects)

    def _prepare_again(self, sampled: tuple[str, ...]) -> None:
        """Send the study again to sites that lost it (a restarted node forgets its context)."""
        forgetful = sorted(self._unprepared & set(sampled))
        busy = self._exchange.busy()
        nodes = {self._sites[name].node_id: name for name in forgetful}
        asked = [node for node in nodes if node not in busy]
        if not asked:
            return
        order = ConfigRecord(
            {"study": self._study.to_json(), **self._signer.to_take_part(self._study)}
        )
        contents = {node: RecordDict({protocol.ORDER: order}) for node in asked}
        for reply in self._exchange(contents, protocol.PREPARE, "prepare", self._patience):
            if reply.has_content() and reply.metadata.src_node_id in nodes:
                self._unprepared.discard(nodes[reply.metadata.src_node_id])

    def _tell(
        self,
        phase: str,
        current: Round,
        site: str = "",
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        self._listener(
            ProgressEvent(
                phase="round" if phase == "round" else "site",
                round=current.number,
                rounds=self._config.rounds,
                seconds=time.monotonic() - current.started,
                done=current.done,
                sites=len(current.asked),
                site=site,
                metrics=metrics or {},
            )
        )


def too_few(where: str, asked: int, answered: int, reasons: Mapping[str, str]) -> ProtocolError:
    """Return the error for an exchange that missed its quorum (HF-403)."""
    examples = sorted(set(reasons.values()))[:3]
    because = f" ({'; '.join(examples)})" if examples else ""
    return ProtocolError(
        403,
        where=where,
        seen=f"{answered} of {asked} sites gave a usable answer{because}",
        wanted="federation.quorum of them must",
        do="See events.log, put the sites right, then run again with resume=true",
    )


def _quorum(sites: int, share: float) -> int:
    return max(1, math.ceil(share * sites - 1e-9))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a value is not a number")
    return float(value)
