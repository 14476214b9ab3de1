"""The site's own rules about differential privacy; no PyTorch, which commands would wait for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.config.privacy import GradSample, PrivacyConfig
from healthfm_core.config.privacy_mechanisms import hides_each_person
from healthfm_core.errors import PolicyError, PrivacyError
from healthfm_core.privacy.ledger import Ledger, PrivacyLimits

if TYPE_CHECKING:
    from healthfm_core.training import PrivacyPlan


class SitePrivacy(Schema):
    """The site's own rules about differential privacy; the defaults leave it to the study."""

    mode: Literal["as_study", "dp"] = Field(
        "as_study", description="'dp': every study trains with noise here, whatever it asks"
    )
    epsilon: float | None = Field(
        None,
        gt=0,
        description="most that one study may cost, all its runs together; needs ledger. With mode: "
        "dp a study that asks for no noise costs this, with as_study it is refused",
    )
    epsilon_max: float | None = Field(
        None, gt=0, description="most that all studies together may ever cost; needs ledger"
    )
    delta: float = Field(1e-5, gt=0, lt=0.01, description="δ that ε is counted at")
    ledger: str | None = Field(
        None, description="file that keeps count; a relative path is from the policy's folder"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="clipping norm where the study has none")
    grad_sample: GradSample = Field(
        "ghost", description="per-person gradients where the study has no method of its own"
    )
    tuning_metrics: bool = Field(
        False,
        description="a study with noise may have tuning metrics too; ε does not cover them",
    )

    @model_validator(mode="after")
    def _rules_are_whole(self) -> Self:
        if self.mode == "dp" and self.epsilon is None:
            raise ValueError("privacy.mode=dp needs privacy.epsilon")
        if self.epsilon_max is not None and self.ledger is None:
            raise ValueError("privacy.epsilon_max needs privacy.ledger, which keeps count")
        if self.epsilon is not None and self.ledger is None:
            raise ValueError(
                "privacy.epsilon needs privacy.ledger, which keeps count: add the line "
                "'ledger: privacy-ledger.jsonl' under privacy"
            )
        return self

    @property
    def is_as_study(self) -> bool:
        """Whether a study decides on the noise; else every study trains with noise here."""
        return self.mode == "as_study"

    def check_noise(self, adds_noise: bool) -> None:
        """Refuse a study without noise where the site has set any ε: none would cover it.

        Args:
            adds_noise: Whether the study asks for noise, in training or in its sums.

        Raises:
            PolicyError: There is no noise here (HF-501).
        """
        limits = [n for n in ("epsilon", "epsilon_max") if getattr(self, n) is not None]
        if adds_noise or self.mode == "dp" or not limits:
            return
        raise PolicyError(
            501,
            where=f"site policy, privacy.{limits[0]}",
            seen="a study without noise, which no ε covers",
            wanted="noise in every study, as privacy.epsilon and epsilon_max promise",
            do="Set privacy.mode: dp in site.yaml to add it here, or take part without a promise "
            "by taking both ε out",
        )

    def check_promise(self, asked: Mapping[str, Any]) -> None:
        """Refuse a run whose contract promises each person less than this site's ε and δ.

        What a run with a `noise_multiplier` promises depends on the site's people; it is counted,
        and refused, before the first round.

        Args:
            asked: The run's ``privacy`` group as JSON.

        Raises:
            PolicyError: It does (HF-501).
        """
        floor = "site policy, privacy_floor"
        if not hides_each_person(asked):
            raise PolicyError(501, where=floor, seen="a run without noise per person")
        most, given = self.epsilon, asked.get("epsilon")
        delta = float(asked.get("delta", self.delta))
        too_much = most is not None and given is not None and float(given) > most
        if too_much or delta > self.delta:
            said = f"δ {delta:g}" if given is None else f"ε {float(given):g}, δ {delta:g}"
            wanted = f"at most ε {most or 0:g}, δ {self.delta:g}"
            raise PolicyError(501, where=floor, seen=f"a run that promises {said}", wanted=wanted)

    def for_study(self, asked: PrivacyConfig) -> PrivacyConfig:
        """Return what holds here of a study that asks for `asked`: the stricter of the two.

        Raises:
            PrivacyError: The study shares noise that this site wants all of its own (HF-604).
        """
        asked = asked.model_copy(
            update={"tuning_metrics": asked.tuning_metrics and self.tuning_metrics}
        )
        if not asked.mechanism.per_site_noise and self.mode == "as_study":
            return asked
        if asked.mechanism.noise_in_sum:
            raise PrivacyError(
                604,
                where=f"privacy.mode={asked.mode}",
                seen="a study whose sites share the noise",
                wanted="privacy.mode: dp of site.yaml has this site add all of its own",
                do="Take no part, or trust the others' shares and set it to as_study",
            )
        if not asked.mechanism.is_private:
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

    def with_ledger_in(self, folder: Path) -> Self:
        """Return the same with the ledger's path taken from `folder`, that of the policy's file."""
        if self.ledger is None:
            return self
        return self.model_copy(update={"ledger": str(folder / self.ledger)})

    def limits(self, private: PrivacyPlan) -> PrivacyLimits:
        """Return what a study's rounds are held to."""
        return PrivacyLimits(self.delta, private.config.epsilon, self.epsilon_max, self.epsilon)

    def open_ledger(self) -> Ledger | None:
        """Return the site's ledger, if it keeps one."""
        return None if self.ledger is None else Ledger(Path(self.ledger))
