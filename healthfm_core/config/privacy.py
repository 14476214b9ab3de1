"""Configuration group ``privacy``: what a run asks of the noise in its sites' training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.config.privacy_mechanisms import MECHANISMS, PrivacyMechanism

GradSample = Literal["ghost", "hooks"]


def _known(mode: str) -> str:
    if mode not in MECHANISMS:
        raise ValueError(f"privacy.mode is one of {', '.join(MECHANISMS)}")
    return mode


class PrivacyConfig(Schema):
    """Differential privacy of local training; the unit is a person's whole record at a site.

    With ``dp`` each site clips every person's gradient and adds noise before its optimiser sees
    it. A site's own policy can ask for more noise than this, never for less. With ``distributed``
    a round is one step of the server's optimiser along the sum of everyone's clipped gradients,
    masked, to which all sites together add noise once: less of it, for who trusts the other sites
    to add their share.
    """

    mode: Annotated[str, AfterValidator(_known)] = "off"
    epsilon: float | None = Field(
        None, gt=0, le=1000, description="ε of the whole run at each site; it fixes the noise"
    )
    noise_multiplier: float | None = Field(
        None, gt=0, le=1000, description="instead of epsilon: the noise, in units of the norm"
    )
    delta: float = Field(1e-5, gt=0, lt=0.01, description="δ; less than 1 in the site's people")
    max_grad_norm: float = Field(
        1.0, gt=0, description="L2 norm that a person's gradient is clipped to"
    )
    group_norms: dict[str, float] = Field(
        default_factory=dict,
        description="parameter group → norm: clips each group by itself, those not named at "
        "max_grad_norm; needs grad_sample=hooks",
    )
    grad_sample: GradSample = Field(
        "ghost", description="'ghost': norms without gradients; 'hooks': a gradient per person"
    )
    rows_at_once: int = Field(
        32, ge=1, description="people whose gradients are worked out together; memory, nothing else"
    )
    tuning_metrics: bool = Field(
        False, description="tuning metrics are sent all the same; ε does not cover them"
    )

    @model_validator(mode="after")
    def _the_mechanism_has_what_it_takes(self) -> Self:
        missing = self.mechanism.missing and self.mechanism.missing(self)
        if missing is not None:
            raise ValueError(missing)
        if self.group_norms and self.grad_sample != "hooks":
            raise ValueError("privacy.group_norms needs privacy.grad_sample=hooks")
        if any(norm <= 0 for norm in self.group_norms.values()):
            raise ValueError("privacy.group_norms are above 0")
        return self

    @property
    def mechanism(self) -> PrivacyMechanism:
        """What ``mode`` names."""
        return MECHANISMS[self.mode]
