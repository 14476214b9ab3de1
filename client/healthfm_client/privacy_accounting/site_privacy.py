"""The site's own rules about differential privacy; no PyTorch, which commands would wait for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.config.privacy import GradSample, PrivacyConfig
from healthfm_core.errors import PrivacyError
from healthfm_core.privacy.ledger import Ledger, PrivacyLimits

if TYPE_CHECKING:
    from healthfm_core.training import PrivacyPlan


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
    grad_sample: GradSample = Field(
        "ghost", description="per-person gradients where the study has no method of its own"
    )

    @model_validator(mode="after")
    def _rules_are_whole(self) -> Self:
        if self.mode == "dp" and self.epsilon is None:
            raise ValueError("privacy.mode=dp needs privacy.epsilon")
        if self.epsilon_max is not None and self.ledger is None:
            raise ValueError("privacy.epsilon_max needs privacy.ledger, which keeps count")
        return self

    def for_study(self, asked: PrivacyConfig) -> PrivacyConfig:
        """Return what holds here of a study that asks for `asked`: the stricter of the two.

        Raises:
            PrivacyError: The study shares noise that this site wants all of its own (HF-604).
        """
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
        wanted = [e for e in (private.config.epsilon, self.epsilon) if e is not None]
        return PrivacyLimits(self.delta, min(wanted, default=None), self.epsilon_max)

    def open_ledger(self) -> Ledger | None:
        """Return the site's ledger, if it keeps one."""
        return None if self.ledger is None else Ledger(Path(self.ledger))
