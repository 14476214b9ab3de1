"""The command ``gain``: from a finished model of the site's to what is said, kept and told."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Final

from healthfm_client.joining_gain import FOLDER, NUMBERS, JoiningGain
from healthfm_client.progress_bar import progress_bar
from healthfm_client.runtime.site_supervision import node_config
from healthfm_client.runtime.study_calls import post_to_study
from healthfm_client.site import computer_limits
from healthfm_client.site.finished_models import FinishedModel
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_node import permitted_stores
from healthfm_client.site.site_policy import TOLD_BY_A_PERSON, SitePolicy
from healthfm_core.errors import PolicyError
from healthfm_core.evaluation.report.report_page import REPORT_FILE
from healthfm_core.federation.protocol import Study
from healthfm_core.stdout import say
from healthfm_core.trained import TrainedModel
from healthfm_core.trust import signed
from healthfm_core.trust.certificates import now_utc

ROUTE: Final = "/v1/healthfm/gain"


def run(home: SiteHome, given: Namespace) -> None:
    """Measure the gain unless only what was measured is to be told, and tell it if that is asked.

    Raises:
        HealthFMError: There is no such model (HF-701), nothing can be compared (HF-730), the
            policy lets nothing out (HF-501), or the study cannot be reached (HF-408, HF-803).
    """
    model, policy = _model(home, given), SitePolicy.read(home.policy)
    numbers = model.folder / FOLDER / NUMBERS
    if not given.tell or not numbers.is_file():
        _measure(home, policy, model, given)
    if given.tell:
        _tell(home, policy, model, json.loads(numbers.read_text("utf-8")), ask=not given.yes)
    else:
        say("nothing of it has left this site; to tell the coordinator: gain --tell")


def _model(home: SiteHome, given: Namespace) -> FinishedModel:
    """Return the model that is meant; one from a folder is kept as a finished one is."""
    if given.model is None:
        return home.finished_models().find(given.run)
    exported, at = TrainedModel.load(given.model), f"{now_utc():%Y-%m-%dT%H:%M:%SZ}"
    kept = home.finished_models()
    known = [model.name for model in kept if model.folder.name == exported.study.hash]
    name = known[0] if known else given.model.resolve().name
    return kept.keep(exported.study, exported.parameters, name, at)


def _measure(home: SiteHome, policy: SitePolicy, model: FinishedModel, given: Namespace) -> None:
    computer_limits.apply(policy.resources)
    study = model.study()
    start = None if given.start_from is None else TrainedModel.load(given.start_from)
    with progress_bar() as show:
        found = JoiningGain.measured(
            study,
            model.parameters(),
            permitted_stores(str(node_config(home)["stores"]), policy),
            name=model.name,
            k=policy.least_people(study),
            start=None if start is None else start.parameters,
            show=lambda done, rounds: show("rounds of the own model", done, rounds),
        )
    found.write(model.folder / FOLDER, home.kit().site)
    for line in found.lines():
        say(line)
    say(f"report: {model.folder / FOLDER / REPORT_FILE}")


def _tell(
    home: SiteHome, policy: SitePolicy, model: FinishedModel, found: Mapping[str, Any], *, ask: bool
) -> None:
    told = permitted(policy, model.study(), found)
    say(f"To the coordinator, of run {model.name}:")
    for name, value in told.items():
        say(f"  {name} {value:.6g}")
    if ask and not _is_meant():
        say("nothing was told")
        return
    body = {"study": model.study().hash, "metrics": told}
    facts = {"run": model.name, "records": {"metrics": {"values": told}}}
    home.log().append("gain", {**facts, "bytes": len(signed.canonical(body))})
    answer = post_to_study(home, ROUTE, body)
    say(f"told: it stands in the report of run {answer.get('run', model.name)}")


def permitted(policy: SitePolicy, study: Study, found: Mapping[str, Any]) -> dict[str, float]:
    """Return what of the numbers the policy lets out.

    Raises:
        PolicyError: Nothing, or training here is private and they would tell more (HF-501).
    """
    privacy = policy.privacy.for_study(study.config.privacy)
    if privacy.mechanism.is_private and not privacy.tuning_metrics:
        raise PolicyError(
            501,
            where="site policy, privacy",
            seen="training is private here, and the own model is trained without noise",
            wanted="privacy.tuning_metrics, as for every figure that ε does not cover",
            do="Keep the numbers, or set privacy: {tuning_metrics: true} in site.yaml",
        )
    metrics = {name: float(value) for name, value in found.items()}
    told = policy.metrics_to_send(metrics, TOLD_BY_A_PERSON)
    if not told:
        raise PolicyError(
            501,
            where="site policy, metrics",
            seen="it lets none of these numbers out",
            wanted="own_model/* and gain/* among the patterns",
            do="Keep the numbers, or add the two to metrics in site.yaml",
        )
    return told


def _is_meant() -> bool:
    """Whether a person at the terminal says yes."""
    if not sys.stdin.isatty():
        say("without a terminal, --yes says that it is meant")
        return False
    return input("Tell it? [yes/no] ").strip().lower() in ("y", "yes")
