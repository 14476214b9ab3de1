"""A coordinator that holds the study's signing key and asks for what it likes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_server.run_folder.checkpoints import ServerState
from healthfm_server.run_folder.run_progress import ignore_progress
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.study_setup.setup import StudySetup
from healthfm_server.transport.exchange import Exchange, Timeouts
from healthfm_server.transport.interface import OpenRound
from healthfm_server.transport.kept_sum import KEPT_FILE
from healthfm_server.transport.orders import Orders
from healthfm_server.transport.secure import SecureTransport
from tests import enrolled
from tests import three_numbers as small
from tests.virtual_clock import virtual_clock

TIMEOUTS = Timeouts(60.0, 60.0)
START = small.ServerWork


def enrolled_sites(
    folder: Path, names: Collection[str], **policy: Any
) -> tuple[Path, list[enrolled.Enrolled]]:
    """Return a study's folder and its sites: each pulls to its place in `names`."""
    authority = enrolled.study(folder / "study")
    found = []
    for place, name in enumerate(sorted(names), start=1):
        spec = small.site(folder, name, pull=float(place), n=10 + place, modalities=("ehr",))
        found.append(enrolled.enrol(authority, spec, place, **policy))
    return folder / "study", found


class Coordinator:
    """One process of it, over the real server's parts.

    Args:
        grid: The sites.
        study: The study's folder, with its signing key; None in a simulation.
        folder: The run's.
        secure: Settings of the sums.
        federation: More settings.
    """

    def __init__(
        self,
        grid: Any,
        study: Path | None,
        folder: Path,
        secure: Mapping[str, Any] | None = None,
        **federation: Any,
    ) -> None:
        sums = {"enabled": True, "message_timeout_s": 30.0, "ring_bits": 64, **(secure or {})}
        given = {"aggregation": {"secure": sums}, "deadline_s": 60.0, "quorum": 0.1}
        self.config = small.config(**{**given, **federation})
        self.grid, self.folder = grid, folder
        begin = RunStore.resume if RunStore.begun(folder) else RunStore.create
        self.store = begin(folder, self.config)
        self.exchange = Exchange(grid, folder)
        self.signer = ContractSigner() if study is None else ContractSigner.of(study, "first")
        work = small.ServerWork()
        self.setup = StudySetup(
            self.exchange, self.store, TIMEOUTS, ignore_progress, work, self.signer
        )
        nodes = list(grid.get_node_ids())
        with virtual_clock():
            self.study = self.store.study() or self.setup.study(nodes, self.config)
            self.sites = self.setup.sites(nodes, self.study)
        self.parameters = work.initial_parameters(self.study, self.config)

    def open(
        self, names: Collection[str], number: int = 1, *, train: bool = True, shift: float = 0.0
    ) -> dict[str, Any] | None:
        """Return Σ w·Δ of one round over `names`, None where the round brings no update.

        Raises:
            PrivacyError: The sum is not opened.
        """
        (self.folder / KEPT_FILE).unlink(missing_ok=True)
        orders = Orders(self.study, self.sites, self.exchange, TIMEOUTS, self.signer)
        transport = SecureTransport(self.study, self.sites, self.exchange, TIMEOUTS, orders)
        start = {n: np.asarray(a + shift, np.float32) for n, a in self.parameters.items()}
        schema = UpdateSchema.of(start, self.config.federation.aggregation.max_update_norm)
        asked = {name: tuple(schema.groups) for name in sorted(names)}
        rounds = self.config.federation.rounds
        current = OpenRound(number, rounds, asked, self.store, ignore_progress, train=train)
        with virtual_clock():
            found = transport.collect(current, ServerState(0, start, None), schema)
        sums: dict[str, Any] = {}
        for group in found.tallies:
            if found.results.has_enough_sites(group):
                weight = found.tallies[group].weight
                means = found.results.result(group)
                sums |= {name: mean * weight for name, mean in means.items()}
        return sums or None
