"""Aliases as a person moves them, by command, page or API: each a line of the audit log."""

from __future__ import annotations

from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.registry.model_aliases import AliasedModel, ModelAliases


def promote_model(
    study: StudyFolder, log: AuditLog, run: str, alias: str, by: str = ""
) -> tuple[AliasedModel, AliasedModel | None]:
    """Have an alias stand for the model that a run ended with; return it and the one before.

    Args:
        study: The study.
        log: Its audit log.
        run: The run's name.
        alias: A name of any kind.
        by: Who asked on the page; empty on the command line.

    Raises:
        RunError: As `ModelAliases.promote`, or there is no such run (HF-722).
        TrustError: The alias cannot be a name (HF-810).
    """
    order = RunOrder.find(study.runs, run)
    new, before = ModelAliases(study.path, study.runs).promote(alias, order)
    about = {"alias": alias, "run": new.run, "round": new.round, "sha256": new.sha256}
    log.note("model promoted", about | {"before": before and before.run} | _by(by))
    return new, before


def retire_alias(study: StudyFolder, log: AuditLog, alias: str, by: str = "") -> AliasedModel:
    """Take an alias away; return the model that it stood for.

    Raises:
        RunError: There is no such alias (HF-733).
    """
    model = ModelAliases(study.path, study.runs).retire(alias)
    about = {"alias": alias, "run": model.run, "round": model.round}
    log.note("model retired", about | _by(by))
    return model


def _by(who: str) -> dict[str, str]:
    return {"by": who} if who else {}
