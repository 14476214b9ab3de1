"""After the last round: each site judges the model on its own held-out people, and says how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flwr.app import Message, RecordDict

from healthfm_core.errors import TrustError
from healthfm_core.federation import protocol
from healthfm_core.federation.contracting import held_out_round
from healthfm_core.federation.parameter_groups import group_names, groups_held
from healthfm_core.federation.protocol import Study
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.held_out_file import HeldOutTold
from healthfm_server.run_folder.run_progress import ignore_progress
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.registered_sites import RegisteredSite, check_sender
from healthfm_server.transport.clear import read_metrics
from healthfm_server.transport.downlink import Downlink
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import OpenRound
from healthfm_server.transport.measured_deadline import measured_timeouts
from healthfm_server.transport.orders import Orders

PHASE: Final = "held-out"
"""Names the exchange, in what is waited for and in the sites' logs."""


@dataclass(frozen=True)
class HeldOutRound:
    """Asks the sites of a run once how its model does.

    Attributes:
        study: What they agreed on.
        sites: By name.
        exchange: Sends and receives.
        timeouts: The run's.
        orders: Writes the orders.
        store: Takes what they tell.
    """

    study: Study
    sites: Mapping[str, RegisteredSite]
    exchange: Exchange
    timeouts: Timeouts
    orders: Orders
    store: RunStore
    found: dict[str, dict[str, float]] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)

    def run(self, state: ServerState) -> HeldOutTold:
        """Ask about the model of `state`, and write down what comes until the deadline.

        A site that says nothing, or refuses, is left out with the reason; the run has ended well
        all the same.
        """
        self.orders.prepare_again(tuple(sorted(self.sites)))
        federation = self.study.config.federation
        timeouts = measured_timeouts(self.timeouts, federation, self.store, self.exchange)
        nodes = {site.node_id: name for name, site in self.sites.items()}
        contents = self._contents(state)
        for reply in self.exchange(contents, protocol.TRAIN, PHASE, timeouts):
            self._take(nodes[reply.metadata.src_node_id], reply)
        for site in self.sites.keys() - self.found.keys() - self.set_aside.keys():
            self._leave_out(site, "it did not answer in time")
        told = HeldOutTold(state.round, tuple(sorted(self.sites)), self.found, self.set_aside)
        told.save(self.store.folder)
        return told

    def _contents(self, state: ServerState) -> dict[int, RecordDict]:
        groups = group_names(state.parameters)
        held = {name: groups_held(site.modalities, groups) for name, site in self.sites.items()}
        rounds = self.study.config.federation.rounds
        number = held_out_round(rounds)
        current = OpenRound(number, rounds, held, self.store, ignore_progress, train=False)
        pieces = Downlink(state.parameters).pieces(held=False)
        contents = {}
        for name, site in self.sites.items():
            arrays, more = pieces.record(held[name]), {"held_out": True}
            order = self.orders.to_train(current, name, arrays, pieces.digests, more=more)
            contents[site.node_id] = order
        return contents

    def _take(self, site: str, reply: Message) -> None:
        """Keep what a site tells; it may send what it likes."""
        if reply.has_error():
            self._leave_out(site, reply.error.reason or f"code {reply.error.code}")
            return
        try:
            records = reply.content
            check_sender(records.config_records[protocol.SITE], self.sites[site])
            told = read_metrics(records.metric_records[protocol.METRICS])
        except TrustError as error:
            self._leave_out(site, str(error))
        except (KeyError, ValueError, TypeError) as error:
            self._leave_out(site, f"its records cannot be read: {error}"[:200])
        else:
            self.found[site] = {n: v for n, v in told.items() if math.isfinite(v)}

    def _leave_out(self, site: str, reason: str) -> None:
        self.set_aside[site] = reason
        self.store.note("held-out people not judged", site=site, reason=reason)
