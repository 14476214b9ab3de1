"""The orders of a round, and the study for the sites that have lost it."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from healthfm_core.federation import protocol
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.seeding import seed_for
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import OpenRound


class Orders:
    """Writes the orders of a study's rounds, signed in a deployment.

    Args:
        study: What the sites agreed on.
        sites: Participating sites by name.
        exchange: Sends and receives.
        timeouts: Deadline and life of messages.
        signer: Signs; does nothing in a simulation.
    """

    def __init__(
        self,
        study: Study,
        sites: Mapping[str, RegisteredSite],
        exchange: Exchange,
        timeouts: Timeouts,
        signer: ContractSigner,
    ) -> None:
        self._study = study
        self._sites = sites
        self._exchange = exchange
        self._timeouts = timeouts
        self._signer = signer
        self._unprepared: set[str] = set()

    def to_train(
        self, current: OpenRound, site: str, arrays: ArrayRecord, digests: Mapping[str, str]
    ) -> RecordDict:
        """Return the records of one site's order.

        Args:
            current: The round.
            site: Whose order.
            arrays: What goes with it.
            digests: SHA-256 of each piece of all arrays, in hex.
        """
        federation = self._study.config.federation
        every = federation.evaluate_every
        order = RoundOrder(
            round=current.number,
            rounds=federation.rounds,
            groups=current.asked[site],
            evaluate=every > 0 and (current.number - 1) % every == 0,
            seed=seed_for(self._study.config.seed, "round", current.number, site),
        )
        fields = {"json": order.to_json(), "study": self._study.hash}
        sent = {piece: digests[piece] for piece in arrays}
        record = ConfigRecord(dict(self._signer.to_train(fields, sent)))
        return RecordDict({protocol.ORDER: record, protocol.ARRAYS: arrays})

    def lost_study(self, site: str) -> None:
        """Remember that a site needs the study again, and with it a new contract."""
        self._unprepared.add(site)

    def is_prepared(self, site: str) -> bool:
        """Return whether a site has the study, as far as is known."""
        return site not in self._unprepared

    def prepare_again(self, sampled: tuple[str, ...]) -> None:
        """Send the study to those of `sampled` that lost it, as a restarted node does."""
        busy = self._exchange.busy()
        nodes = {
            self._sites[name].node_id: name for name in sorted(self._unprepared & set(sampled))
        }
        asked = [node for node in nodes if node not in busy]
        if not asked:
            return
        order = ConfigRecord(
            {"study": self._study.to_json(), **self._signer.to_take_part(self._study)}
        )
        contents = {node: RecordDict({protocol.ORDER: order}) for node in asked}
        for reply in self._exchange(contents, protocol.PREPARE, "prepare", self._timeouts):
            if reply.has_content() and reply.metadata.src_node_id in nodes:
                self._unprepared.discard(nodes[reply.metadata.src_node_id])
