"""The orders of a round, and the study for the sites that have lost it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from healthfm_core.federation import protocol
from healthfm_core.federation.contracting import terms_of
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.seeding import seed_for
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import OpenRound


@dataclass(frozen=True)
class Orders:
    """Writes the orders of a study's rounds, signed in a deployment.

    Attributes:
        study: What the sites agreed on.
        sites: Participating sites by name.
        exchange: Sends and receives.
        timeouts: Deadline and life of messages.
        signer: Signs; does nothing in a simulation.
        unprepared: Sites that need the study again, and with it a new contract, as a restarted
            node does.
    """

    study: Study
    sites: Mapping[str, RegisteredSite]
    exchange: Exchange
    timeouts: Timeouts
    signer: ContractSigner
    unprepared: set[str] = field(default_factory=set)

    def to_train(
        self,
        current: OpenRound,
        site: str,
        arrays: ArrayRecord,
        digests: Mapping[str, str],
        *,
        score: bool = True,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> RecordDict:
        """Return the records of one site's order.

        Args:
            current: The round.
            site: Whose order.
            arrays: What goes with it.
            digests: SHA-256 of each piece of all arrays, in hex.
            score: Whether the sites may be asked for scores of the model at all.
            more: Fields of the `RoundOrder` that codecs need.
        """
        federation = self.study.config.federation
        every = federation.evaluate_every
        order = RoundOrder(
            round=current.number,
            rounds=federation.rounds,
            groups=current.asked[site],
            evaluate=not current.train
            or (score and every > 0 and (current.number - 1) % every == 0),
            seed=seed_for(self.study.config.seed, "round", current.number, site),
            train=current.train,
            **more,
        )
        fields = {"json": order.to_json(), "study": self.study.hash}
        sent = {piece: digests[piece] for piece in arrays}
        record = self.signer.to_train(fields, sent, site, self.timeouts.ttl_s)
        return RecordDict({protocol.ORDER: ConfigRecord(dict(record)), protocol.ARRAYS: arrays})

    def prepare_again(self, sampled: tuple[str, ...]) -> None:
        """Send the study to those of `sampled` that lost it."""
        busy = self.exchange.busy()
        nodes = {self.sites[name].node_id: name for name in sorted(self.unprepared & set(sampled))}
        asked = [node for node in nodes if node not in busy]
        if not asked:
            return
        contract = self.signer.sign(partial(terms_of, self.study), self.study.config)
        order = ConfigRecord({"study": self.study.to_json(), **contract})
        contents = {node: RecordDict({protocol.ORDER: order}) for node in asked}
        for reply in self.exchange(contents, protocol.PREPARE, "prepare", self.timeouts):
            if reply.has_content() and reply.metadata.src_node_id in nodes:
                self.unprepared.discard(nodes[reply.metadata.src_node_id])
