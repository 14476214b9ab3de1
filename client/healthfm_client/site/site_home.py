"""A site's own folder: its keys, its kit, its policy, its log, and what its administrator said.

Beside what `SiteFolder` has: ``enrolment.json`` is who the site said it is, ``egress.log`` what
left, ``state/`` whether it is paused, which contracts and orders were used, the runs that ask for
approval.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from healthfm_client.egress.egress_log import EgressLog
from healthfm_client.egress.repeated_refusals import RepeatedRefusals
from healthfm_client.site.finished_models import FinishedModels
from healthfm_client.site.run_approvals import Approvals
from healthfm_client.site.site_folder import SiteFolder
from healthfm_core.errors import PolicyError
from healthfm_core.trust import files
from healthfm_core.trust.names import check_name, check_url
from healthfm_core.trust.nonces import UsedNonces

_STATES: Final = ("paused", "left")


@dataclass(frozen=True)
class Enrolment:
    """Who the site said it is, when it asked to join.

    Attributes:
        site: The name it gave itself; the kit's is the one that counts.
        url: The study's address.
        modalities: What it means to bring, sorted.
    """

    site: str
    url: str
    modalities: tuple[str, ...]


class SiteHome(SiteFolder):
    """The folder and what its administrator decides in it.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.request = path / "request.zip"
        self._enrolment = path / "enrolment.json"
        self._state = path / "state"

    def begin(self, site: str, url: str, modalities: Collection[str]) -> Enrolment:
        """Put who the site is on disk; said again it must be the same.

        Raises:
            TrustError: The name or address cannot be used (HF-810), or the folder is another
                site's or study's (HF-801).
        """
        check_name(site, "site")
        enrolment = Enrolment(site, check_url(url), tuple(sorted(modalities)))
        before = self.enrolment()
        if before is not None and (before.site, before.url) != (site, enrolment.url):
            raise files.exists_already(self._enrolment)
        text = json.dumps(asdict(enrolment), indent=1) + "\n"
        files.replace(self._enrolment, text.encode())
        return enrolment

    def enrolment(self) -> Enrolment | None:
        """Return who the site is, None where it has not asked to join.

        Raises:
            TrustError: The file is damaged (HF-802).
        """
        if not self._enrolment.exists():
            return None
        try:
            raw: dict[str, Any] = json.loads(files.read(self._enrolment, "the enrolment"))
            return Enrolment(**{**raw, "modalities": tuple(raw["modalities"])})
        except (ValueError, KeyError, TypeError) as error:
            raise files.unusable(self._enrolment, "the enrolment is damaged") from error

    def log(self) -> EgressLog:
        """Return the log of what left."""
        return EgressLog(self.path / "egress.log")

    def repeated_refusals(self) -> RepeatedRefusals:
        """Return the memory of what was refused of late."""
        return RepeatedRefusals(self._state / "refusals.json")

    def used_contracts(self) -> UsedNonces:
        """Return the memory of contracts that were used."""
        return UsedNonces(self._state / "contracts")

    def used_orders(self) -> UsedNonces:
        """Return the memory of training orders that were taken."""
        return UsedNonces(self._state / "orders")

    def approvals(self) -> Approvals:
        """Return the runs that a person is asked about."""
        return Approvals(self._state / "runs")

    def finished_models(self) -> FinishedModels:
        """Return the models that this site helped to train."""
        return FinishedModels(self._state / "finished")

    @property
    def state_folder(self) -> Path:
        """Where what outlives a message is kept."""
        return self._state

    def state(self) -> str:
        """Return ``open``, ``paused`` or ``left``."""
        return next((s for s in reversed(_STATES) if (self._state / s).exists()), "open")

    def set_state(self, state: str) -> None:
        """Set it; a running client obeys from its next message on."""
        if state in _STATES:
            files.replace(self._state / state, b"")
        for other in _STATES:
            if other != state:
                (self._state / other).unlink(missing_ok=True)

    def check_open(self) -> None:
        """Refuse while the administrator has stopped the site.

        Raises:
            PolicyError: It is paused (HF-505) or has left (HF-508).
        """
        state = self.state()
        if state == "paused":
            raise PolicyError(505, where="site")
        if state == "left":
            raise PolicyError(508, where="site")
