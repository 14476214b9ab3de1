"""What a study may cost this site's people, and the ledger that keeps count over all studies.

The site's own ``privacy`` section can make any study private, ask for more noise than a study
does, and end its part in one that would cost too much: before the first round, when the whole of
it would, or in the middle. A refusal ends the site's part; the federation goes on without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flwr.app import ConfigRecord, Context

from healthfm_client.local_work import LocalWork
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_core.arrays import Float32
from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.privacy.distributed import noise_for
from healthfm_core.privacy.ledger import check, exceeded, spent
from healthfm_core.training import PrivacyPlan

_RECORD: Final = "privacy"


def admit(work: LocalWork, rules: SitePrivacy, context: Context, study: Study, data: Any) -> None:
    """Refuse a study whose rounds would cost more than the site permits, before any of them.

    Raises:
        PrivacyError: They would (HF-601); the ledger is damaged or out of reach (HF-602, HF-603);
            or the settings protect nobody here (HF-604).
    """
    private = _private(work, rules, context, study, data) or _of_sums(study)
    if private is None:
        return
    book = rules.book()
    entries = () if book is None else book.entries()
    taken = sum(part.steps for part in spent(entries, study.run_id))
    whole = private.whole
    left = Mechanism(whole.noise_multiplier, whole.sample_rate, max(0, whole.steps - taken))
    check(entries, study.run_id, left, rules.limits(private))


def train(
    work: LocalWork,
    rules: SitePrivacy,
    context: Context,
    parameters: Mapping[str, Float32],
    data: Any,
    study: Study,
    order: RoundOrder,
) -> RoundResult:
    """Train a round, its cost reserved before and written down after.

    Raises:
        PrivacyError: The round would cost more than the site permits (HF-601), or the ledger is
            damaged or out of reach (HF-602, HF-603); nothing was read of anybody.
    """
    private = _private(work, rules, context, study, data)
    book, name = rules.book(), study.config.name
    cost = private or _of_sums(study)
    if cost is None and book is not None:
        book.unprotected(study.run_id, name)
    if private is not None:
        _count(context, private)
    if cost is None or book is None:
        return work.train_round(parameters, data, study, order, private)
    limits = rules.limits(cost)
    reserved = book.reserve(study.run_id, name, order.round, cost.mechanism, limits)
    result = work.train_round(parameters, data, study, order, private)
    book.spend(reserved, cost.mechanism.steps)
    book.commit(reserved)
    return result


def _of_sums(study: Study) -> PrivacyPlan | None:
    """Return what noise in the sums of whole updates costs a person; training has none then."""
    sums, rounds = study.config.federation.aggregation.secure, study.config.federation.rounds
    if not sums.enabled or sums.epsilon is None:
        return None
    noise = noise_for(sums.epsilon, sums.delta, rounds)
    if sums.unit == "site":  # a record can turn an update into any other: twice what a site is
        noise /= 2
    config = PrivacyConfig(mode="dp", noise_multiplier=noise, delta=sums.delta)
    return PrivacyPlan(config, Mechanism(noise, 1.0, 1), rounds)


def _private(
    work: LocalWork, rules: SitePrivacy, context: Context, study: Study, data: Any
) -> PrivacyPlan | None:
    """Return how the study's rounds are private here; remembered, for finding the noise is slow."""
    config = rules.of_study(study.config.privacy)
    if not config.mechanism.is_private:
        return None
    key = f"{study.hash} {config.model_dump_json()}"
    known = context.state.config_records.get(_RECORD)
    if known is None or known["key"] != key:
        found = work.plan_privacy(data, study, config)
        mechanism = found.mechanism
        known = context.state[_RECORD] = ConfigRecord(
            {
                "key": key,
                "noise_multiplier": mechanism.noise_multiplier,
                "sample_rate": mechanism.sample_rate,
                "steps": mechanism.steps,
                "taken": 0,
            }
        )
    mechanism = Mechanism(
        float(str(known["noise_multiplier"])),
        float(str(known["sample_rate"])),
        int(str(known["steps"])),
    )
    return PrivacyPlan(config, mechanism, study.config.federation.rounds)


def _count(context: Context, private: PrivacyPlan) -> None:
    """Refuse more steps than the study was admitted for.

    Raises:
        PrivacyError: HF-601.
    """
    record = context.state.config_records[_RECORD]
    taken = int(str(record["taken"])) + private.mechanism.steps
    if taken > private.whole.steps:
        raise exceeded("a round beyond the study's last", private.epsilon())
    record["taken"] = taken
