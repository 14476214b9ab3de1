"""What a study may cost this site's people, and the ledger that keeps count over all studies.

The site's own ``privacy`` section can make any study private, ask for more noise than a study
does, and end its part in one that would cost too much: before the first round, when the whole of
it would, or in the middle. A refusal ends the site's part; the federation goes on without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Context
from pydantic import Field, model_validator

from healthfm_client.local import LocalWork
from healthfm_core.config.base import Schema
from healthfm_core.config.privacy import GradSample, PrivacyConfig
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.privacy.ledger import Ledger, Limits, check, exceeded, spent
from healthfm_core.training import Private

_RECORD: Final = "privacy"


class SitePrivacy(Schema):
    """The site's own rules about differential privacy; the defaults leave it to the study."""

    mode: Literal["as_study", "dp"] = Field(
        "as_study", description="'dp': every study trains with noise here, whatever it asks"
    )
    epsilon: float | None = Field(
        None, gt=0, description="most that one study may cost; a study that asks none costs this"
    )
    epsilon_max: float | None = Field(
        None, gt=0, description="most that all studies together may ever cost; needs ledger"
    )
    delta: float = Field(1e-5, gt=0, lt=0.01, description="δ that ε is counted at")
    ledger: str | None = Field(
        None, description="file that keeps count; a relative path is from the policy's folder"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="clipping norm where the study has none")
    grad_sample: GradSample = Field("ghost", description="the same of how gradients are told apart")

    @model_validator(mode="after")
    def _rules_are_whole(self) -> Self:
        if self.mode == "dp" and self.epsilon is None:
            raise ValueError("privacy.mode=dp needs privacy.epsilon")
        if self.epsilon_max is not None and self.ledger is None:
            raise ValueError("privacy.epsilon_max needs privacy.ledger, which keeps count")
        return self

    def of_study(self, asked: PrivacyConfig) -> PrivacyConfig:
        """Return what holds here of a study that asks for `asked`: the stricter of the two."""
        if asked.mode == "off" and self.mode == "as_study":
            return asked
        if asked.mode == "off":
            return PrivacyConfig(
                mode="dp",
                epsilon=self.epsilon,
                delta=self.delta,
                max_grad_norm=self.max_grad_norm,
                grad_sample=self.grad_sample,
            )
        changes: dict[str, Any] = {"delta": min(asked.delta, self.delta)}
        if asked.epsilon is not None and self.epsilon is not None:
            changes["epsilon"] = min(asked.epsilon, self.epsilon)
        return asked.model_copy(update=changes)

    def beside(self, folder: Path) -> Self:
        """Return the same with the ledger's path from `folder`, where the policy's file lies."""
        if self.ledger is None:
            return self
        return self.model_copy(update={"ledger": str(folder / self.ledger)})

    def limits(self, private: Private) -> Limits:
        """Return what a study's rounds are held to."""
        wanted = [e for e in (private.config.epsilon, self.epsilon) if e is not None]
        return Limits(self.delta, min(wanted, default=None), self.epsilon_max)

    def book(self) -> Ledger | None:
        """Return the site's ledger, if it keeps one."""
        return None if self.ledger is None else Ledger(Path(self.ledger))


def admit(work: LocalWork, rules: SitePrivacy, context: Context, study: Study, data: Any) -> None:
    """Refuse a study whose rounds would cost more than the site permits, before any of them.

    Raises:
        PrivacyError: They would (HF-601); the ledger is damaged or out of reach (HF-602, HF-603);
            or the settings protect nobody here (HF-604).
    """
    private = _private(work, rules, context, study, data)
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
    parameters: Mapping[str, npt.NDArray[np.float32]],
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
    if private is None:
        if book is not None:
            book.unprotected(study.run_id, name)
        return work.run_round(parameters, data, study, order)
    _count(context, private)
    if book is None:
        return work.run_round(parameters, data, study, order, private)
    limits = rules.limits(private)
    reserved = book.reserve(study.run_id, name, order.round, private.mechanism, limits)
    result = work.run_round(parameters, data, study, order, private)
    book.spend(reserved, private.mechanism.steps)
    book.commit(reserved)
    return result


def _private(
    work: LocalWork, rules: SitePrivacy, context: Context, study: Study, data: Any
) -> Private | None:
    """Return how the study's rounds are private here; remembered, for finding the noise is slow."""
    config = rules.of_study(study.config.privacy)
    if config.mode == "off":
        return None
    key = f"{study.hash} {config.model_dump_json()}"
    known = context.state.config_records.get(_RECORD)
    if known is None or known["key"] != key:
        found = work.private_training(data, study, config)
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
    return Private(config, mechanism, study.config.federation.rounds)


def _count(context: Context, private: Private) -> None:
    """Refuse more steps than the study was admitted for.

    Raises:
        PrivacyError: HF-601.
    """
    record = context.state.config_records[_RECORD]
    taken = int(str(record["taken"])) + private.mechanism.steps
    if taken > private.whole.steps:
        raise exceeded("a round beyond the study's last", private.epsilon())
    record["taken"] = taken
