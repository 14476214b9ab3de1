"""What may be changed from the page and the API, by the functions that the commands call."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from healthfm_core.errors import TrustError
from healthfm_core.trust import files
from healthfm_core.trust.names import check_name
from healthfm_core.trust.request import EnrolmentRequest, read_request
from healthfm_server.deploy.admission_terms import AdmissionTerms
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.run_ordering import RunWish, order_run, ordered_details
from healthfm_server.deploy.run_orders import ACTIONS, RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.registry.model_aliases import AliasedModel
from healthfm_server.registry.noted_aliases import promote_model, retire_alias

EFFECTS: Final[Mapping[str, str]] = {
    "pause": "It stops, the sites' computing too. Resume continues from its last round.",
    "resume": "It continues from its last round.",
    "stop": "It is given up, the sites' computing stops. Its rounds stay on disk.",
}
MOST_SETTINGS: Final = 200
RUN_FIELDS: Final[Mapping[str, type]] = {
    "settings": list,
    "name": str,
    "sites": list,
    "even_so": bool,
    "dry_run": bool,
}
RUN_WANTED: Final = (
    "settings and sites are lists of text, name is text, even_so and dry_run are true or false"
)


class StudyActions:
    """Changes of a study; one at a time, each a line of the audit log with who did it.

    Args:
        study: The study.
        log: The audit log.

    Attributes:
        study: The study.
    """

    def __init__(self, study: StudyFolder, log: AuditLog) -> None:
        self.study = study
        self._log = log
        self._lock = threading.Lock()

    def order(self, wish: RunWish, by: str) -> RunOrder:
        """Order a run.

        Raises:
            TrustError: A setting names a file or a variable of this machine (HF-831).
            HealthFMError: As `order_run`.
        """
        _refuse_settings(wish.settings)
        with self._lock:
            order, _ = order_run(self.study, wish)
            self._log.note("run ordered", {**ordered_details(order), "by": by})
        return order

    def change(self, name: str, action: str, by: str) -> RunOrder:
        """Pause, resume or stop a run.

        Raises:
            RunError: There is none of that name (HF-722).
        """
        with self._lock:
            order = RunOrder.find(self.study.runs, name)
            order.want(ACTIONS[action])
            self._log.note(f"run {action}", {"run": order.name, "by": by})
        return order

    def revoke(self, name: str, by: str) -> None:
        """Shut a site out.

        Raises:
            TrustError: There is none of that name (HF-811).
        """
        from healthfm_server.deploy.admission import revoke_site  # here: it loads Flower

        with self._lock:
            site = revoke_site(self.study, name)
            self._log.note("site revoked", {"site": site.name, "by": by})

    def request(self, file: str) -> EnrolmentRequest:
        """Return a request that waits.

        Raises:
            TrustError: There is none (HF-806), or it cannot be used (HF-806, HF-807).
        """
        return read_request(files.read_given(self._waiting(file), "the request"), file)

    def admit(self, file: str, terms: AdmissionTerms, by: str) -> Path:
        """Admit a site by a request that waits, take that away, and return its kit.

        Raises:
            TrustError: As `admission.admit_site`.
        """
        from healthfm_server.deploy.admission import admit_site  # here: it loads Flower

        with self._lock:
            request = self.request(file)
            kit = self.kit(terms.name)
            kit.parent.mkdir(exist_ok=True)
            if kit.exists() and terms.renew:
                kit.unlink()
            admit_site(self.study, request, terms, kit)
            details = {"site": terms.name, **request.fingerprints(), "by": by}
            self._log.note("site admitted", details)
            self._waiting(file).unlink()
        return kit

    def promote(self, run: str, alias: str, by: str) -> tuple[AliasedModel, AliasedModel | None]:
        """Have an alias stand for a run's model; return it and the one that it stood for.

        Raises:
            RunError: There is no such run (HF-722), or no model that is done (HF-732).
            TrustError: The alias cannot be a name (HF-810).
        """
        with self._lock:
            return promote_model(self.study, self._log, run, alias, by)

    def retire(self, alias: str, by: str) -> AliasedModel:
        """Take an alias away; the model stays.

        Raises:
            RunError: There is no such alias (HF-733).
        """
        with self._lock:
            return retire_alias(self.study, self._log, alias, by)

    def kit(self, site: str) -> Path:
        """Return where a site's kit is, if it was made here.

        Raises:
            TrustError: The name cannot be used (HF-810).
        """
        return self.study.path / "kits" / f"{check_name(site, 'site')}-kit.zip"

    def _waiting(self, file: str) -> Path:
        folder = self.study.path / "requests"
        found = {path.name: path for path in folder.glob("*.zip")}
        if file in found:
            return found[file]
        raise TrustError(
            806,
            where=f"request {file[:80]!r}",
            seen="no such request waits",
            wanted="one of those that the page lists",
            do="It may have been signed meanwhile; see: healthfm-server site list",
        )


def wish_of(form: Mapping[str, str]) -> RunWish:
    """Return the run that a form asks for.

    Args:
        form: ``settings`` with one a line, ``name``, ``sites`` with one a line, ``even_so``,
            ``dry_run``.
    """
    return RunWish(
        settings=_lines(form.get("settings", "")),
        name=form.get("name", "").strip(),
        sites=_lines(form.get("sites", "")),
        even_so=form.get("even_so", "") == "yes",
        dry_run=form.get("dry_run", "") == "yes",
    )


def wish_of_fields(fields: Mapping[str, Any]) -> RunWish:
    """Return the run that a program asks for, by the fields of `RUN_FIELDS`."""
    return RunWish(
        settings=tuple(fields.get("settings", ())),
        name=fields.get("name", ""),
        sites=tuple(fields.get("sites", ())),
        even_so=fields.get("even_so", False),
        dry_run=fields.get("dry_run", False),
    )


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _refuse_settings(settings: Sequence[str]) -> None:
    """Refuse what would read files or the environment of this machine for who asks."""
    for setting in settings:
        if "$" in setting or setting.endswith((".yaml", ".yml")):
            raise TrustError(
                831,
                where=f"setting {setting[:80]!r}",
                seen="it names a file or a variable of the coordinator's machine",
                wanted="group=option or key=value",
            )
    if len(settings) > MOST_SETTINGS:
        raise TrustError(831, where="settings", seen=f"{len(settings)}", wanted="200 at most")
