"""What one study may spend of this site's privacy budget: checked before, reserved, committed.

The site's own ``privacy`` section can make any study private, ask for more noise than a study
does, and end its part in one that would cost too much: before the first round, when the whole of
it would, or in the middle. A refusal ends the site's part; the federation goes on without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Self

from flwr.app import ConfigRecord, Context

from healthfm_client.local_work import LocalWork
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.site.site_node import SiteNode
from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.federation.protocol import Study
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.privacy.distributed import noise_for
from healthfm_core.privacy.ledger import budget_exceeded, check_limits, spent_mechanisms
from healthfm_core.training import PrivacyPlan

_RECORD: Final = "privacy"


@dataclass(frozen=True)
class StudyBudget:
    """One study at this site, and what each of its rounds costs the site's people.

    Attributes:
        study: The study.
        rules: The site's own limits and its ledger.
        context: The node's context, which counts the steps of this study.
        plan: Noise added in training; None where the study trains without.
        cost: What a round costs: the plan, or the noise in sums of updates; None: it has no noise.
        signed_study: Whose runs add up in the ledger; empty in a simulation.
    """

    study: Study
    rules: SitePrivacy
    context: Context
    plan: PrivacyPlan | None
    cost: PrivacyPlan | None
    signed_study: str

    @classmethod
    def of(cls, work: LocalWork, node: SiteNode, context: Context, study: Study, data: Any) -> Self:
        """Return the budget of `study` over the people in `data`.

        Raises:
            PolicyError: It has no noise, and the site's policy has an ε (HF-501).
            PrivacyError: The settings protect nobody here (HF-604).
        """
        rules = node.policy.privacy
        plan = _plan(work, rules, context, study, data)
        cost = plan or _noise_in_sums(study)
        rules.check_noise(cost is not None)
        return cls(study, rules, context, plan, cost, node.signed_study)

    def check_whole_study(self) -> None:
        """Refuse a study whose rounds would together cost more than the site permits.

        Raises:
            PrivacyError: They would (HF-601), or the ledger is damaged or cannot be read (HF-602,
                HF-603).
        """
        if self.cost is None:
            return
        ledger = self.rules.open_ledger()
        entries = () if ledger is None else ledger.entries()
        taken = sum(part.steps for part in spent_mechanisms(entries, self.study.run_id))
        whole = self.cost.whole
        left = replace(whole, steps=max(0, whole.steps - taken))
        limits = self.rules.limits(self.cost)
        check_limits(entries, self.study.run_id, left, limits, self.signed_study)

    def reserve(self, round_: int) -> int | None:
        """Put a round's whole cost in the ledger before anybody's record is read.

        Returns:
            The reservation, for `commit`; None where nothing is to be counted.

        Raises:
            PrivacyError: The round would cost more than the site permits (HF-601), or the ledger is
                damaged or cannot be written (HF-602, HF-603).
        """
        ledger, run_id, name = self.rules.open_ledger(), self.study.run_id, self.study.config.name
        if self.cost is None and ledger is not None:
            ledger.note_unprotected(run_id, name, self.signed_study)
        if self.plan is not None:
            self._count_steps(self.plan)
        if self.cost is None or ledger is None:
            return None
        limits = self.rules.limits(self.cost)
        cost, whose = self.cost.mechanism, self.signed_study
        return ledger.reserve(run_id, name, round_, cost, limits, whose)

    def commit(self, reservation: int | None) -> None:
        """Write down that a reserved round was trained and that its update is about to leave.

        Raises:
            PrivacyError: The ledger is damaged or cannot be written (HF-602, HF-603).
        """
        ledger = self.rules.open_ledger()
        if reservation is not None and ledger is not None and self.cost is not None:
            ledger.spend(reservation, self.cost.mechanism.steps)
            ledger.commit(reservation)

    def _count_steps(self, plan: PrivacyPlan) -> None:
        """Refuse more steps than the study was admitted for.

        Raises:
            PrivacyError: HF-601.
        """
        record = self.context.state.config_records[_RECORD]
        taken = int(str(record["taken"])) + plan.mechanism.steps
        if taken > plan.whole.steps:
            raise budget_exceeded("a round beyond the study's last", plan.epsilon())
        record["taken"] = taken


def _noise_in_sums(study: Study) -> PrivacyPlan | None:
    """Return what noise in sums of whole updates costs a person; training itself has none then."""
    sums, rounds = study.config.federation.aggregation.secure, study.config.federation.rounds
    if not sums.enabled or sums.epsilon is None:
        return None
    noise = noise_for(sums.epsilon, sums.delta, rounds)
    if sums.unit == "site":  # a record can turn an update into any other: twice what a site is
        noise /= 2
    config = PrivacyConfig(mode="dp", noise_multiplier=noise, delta=sums.delta)
    return PrivacyPlan(config, Mechanism(noise, 1.0, 1, discrete=True), rounds)


def _plan(
    work: LocalWork, rules: SitePrivacy, context: Context, study: Study, data: Any
) -> PrivacyPlan | None:
    """Return the noise of the study's rounds here; remembered, because finding it is slow."""
    config = rules.for_study(study.config.privacy)
    if not config.mechanism.is_private:
        return None
    key = f"{study.hash} {config.model_dump_json()}"
    remembered = context.state.config_records.get(_RECORD)
    if remembered is None or remembered["key"] != key:
        mechanism = work.plan_privacy(data, study, config).mechanism
        remembered = context.state[_RECORD] = ConfigRecord(
            {
                "key": key,
                "noise_multiplier": mechanism.noise_multiplier,
                "sample_rate": mechanism.sample_rate,
                "steps": mechanism.steps,
                "taken": 0,
            }
        )
    mechanism = Mechanism(
        float(str(remembered["noise_multiplier"])),
        float(str(remembered["sample_rate"])),
        int(str(remembered["steps"])),
        discrete=config.mechanism.noise_in_sum,
    )
    return PrivacyPlan(config, mechanism, study.config.federation.rounds)
