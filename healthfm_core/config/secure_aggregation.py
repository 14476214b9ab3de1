"""Configuration block ``federation.aggregation.secure``: what a sum of sites takes."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema

COARSE_BITS: Final = 16
"""Of a ring that large groups stand in once their numbers are about equally large."""


class SecureAggregationConfig(Schema):
    """Sums of the sites' updates, metrics and statistics, opened by a threshold of sites."""

    enabled: bool = False
    clip: float = Field(
        20.0,
        gt=0,
        le=1e6,
        description="L2 norm of one group's update at a site; a longer one is shortened to it",
    )
    clips: dict[str, float] = Field(
        default_factory=dict, description="group → its own clip instead of `clip`"
    )
    ring_bits: Literal[16, 32, 64] = Field(
        32,
        description="32: as many bytes as float32; 64: twice, and 2^32 times finer; 16: half, of "
        "groups of 4,096 numbers or more, whose mean is then off by about 0.0002 of the clip times "
        "the root of the number of sites (L2); without noise in the sum",
    )
    threshold: float = Field(
        2 / 3, gt=0.5, le=1, description="share of the sites that a sum takes to be opened"
    )
    min_sites: int = Field(3, ge=2, le=10_000, description="fewest sites whose sum is opened")
    degree: int = Field(
        0,
        ge=0,
        le=10_000,
        description="sites that each site masks with; 0: chosen from the number of sites, all "
        "where they are few",
    )
    colluding_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of sites that may tell the coordinator what they know"
    )
    dropout_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of sites that may leave in a round"
    )
    hide_modalities: bool = Field(
        True,
        description="no message tells which modalities a site has, its coverage stays there; "
        "false: it says both before round 1, updates are sums over the same arrays all the same",
    )
    message_timeout_s: float = Field(
        300.0, gt=0, description="how long the exchanges without training wait for sites"
    )
    epsilon: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="noise is added at the sites so that all rounds together are (ε, δ)-DP; "
        "None: no noise",
    )
    delta: float = Field(1e-6, gt=0, lt=0.5)
    unit: Literal["site", "subject"] = Field(
        "subject",
        description="what ε speaks of: one subject's record (twice the clip), or a site's part",
    )

    @property
    def fine_bits(self) -> Literal[32, 64]:
        """Bits of the ring of whatever does not stand in `COARSE_BITS`."""
        return 64 if self.ring_bits == 64 else 32

    @model_validator(mode="after")
    def _noise_has_room(self) -> Self:
        if self.ring_bits == COARSE_BITS and self.epsilon is not None:
            raise ValueError(
                "federation.aggregation.secure.ring_bits=16 has no room for noise in the sum, "
                "whose steps would cost more noise than they save bytes: leave it at 32, or add "
                "noise at each site with privacy.mode=dp"
            )
        return self
