"""Configuration group ``model``: sizes and switches of the network."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from healthfm_core.config.base import Schema

Attention = Literal["logbias", "postmul", "logitmul", "rope_days", "sinusoid"]
AttentionVariant = Literal["logbias", "postmul", "logitmul", "none"]
"""What the attention's implementations tell apart (`healthfm_core.kernels.ct_attention`)."""

PLAIN_ATTENTION: Final = ("rope_days", "sinusoid")
"""Ablations that tell times apart at the input: their attention is plain."""


class ModelConfig(Schema):
    """The network's shape; the sizes are those of the design's table."""

    name: str = "demo"
    layers: int = Field(4, ge=1)
    width: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    ffn: int = Field(512, ge=8)
    rates: int = Field(3, ge=1, le=8, description="learnable decay rates per head (R)")
    start_half_lives: tuple[float, float] = Field(
        (1 / 24, 3652.5),
        description="days: half-lives start log-spaced between these, staggered over the heads",
    )
    floor: bool = Field(False, description="one more component that never decays")
    time_features: bool = Field(
        True, description="time at the input too; without it the attention alone tells times apart"
    )
    attention: Attention = "logbias"
    activation: Literal["gelu", "swiglu"] = "gelu"
    sum_pooling: bool = Field(
        False, description="a state also reads a sum over all tokens it may see, not only means"
    )
    linear_logit: bool = Field(
        False,
        description="a label's logit also has a linear part, the sum of a weight per code and "
        "per worn hour: a regression inside the network",
    )
    linear_knots: tuple[float, ...] = Field(
        (),
        description="where the linear part's slopes may change, in the tokens' numbers (about "
        "standard deviations from the median); none: straight lines",
    )
    linear_hours: float | None = Field(
        None,
        gt=0,
        description="the linear part reads what each code says in so many last hours as one bin, "
        "whatever tokens.bin_hours is; None: token by token",
    )
    memory: bool = Field(
        False,
        description="a query's state also reads each modality's own means that fade with the days "
        "(models.decaying_memory), and the scores as they are",
    )
    memory_fusion: Literal["sum", "product"] = Field(
        "sum",
        description="how modalities' memories meet: each adds means of its own to the state, or "
        "all give evidence for one mean, by their precision (models.product_of_experts)",
    )
    memory_width: int = Field(16, ge=1, description="numbers that a memory keeps of a token")
    memory_recency_days: tuple[PositiveFloat, ...] = Field(
        (1.0, 30.0, 1000.0),
        min_length=1,
        description="half-lives a memory starts with of how a token weighs beside the latest",
    )
    memory_fade_days: tuple[PositiveFloat, ...] = Field(
        (30.0, 1000.0),
        min_length=1,
        description="half-lives it starts with of what a token says; each pair is a mean",
    )
    memory_decay: bool = Field(
        True, description="memories weigh by time; without, plain means of all there is (ablation)"
    )
    summary_hours: float | None = Field(
        None,
        gt=0,
        description="a query's state also reads a network over what each code says in so many "
        "last hours, all codes together (models.code_summaries); None: there is none",
    )
    summary_width: int = Field(128, ge=1, description="width of that network's first layer")
    layer_scale: float | None = Field(
        None,
        ge=0,
        le=1,
        description="start of a learned scale, a number per channel, on what the attention blocks "
        "say at a query (LayerScale); a query's own age and gap then add to its state directly",
    )
    code_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="size of the vectors codes start from; small where codes are many and people "
        "few, so that a rare code says little",
    )
    adapter_rank: int = Field(
        0,
        ge=0,
        description="rank of what adapters add to queries, keys and values; 0: there are none",
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    wearable_layers: int = Field(2, ge=1)
    wearable_width: int = Field(64, ge=8)
    wearable_heads: int = Field(4, ge=1)
    prs_tokens: int = Field(4, ge=1)
    prs_width: int = Field(64, ge=8)
    genomics_fusion: Literal["soft_tokens", "cross_attention", "late"] = Field(
        "soft_tokens",
        description="polygenic scores as tokens of the row, read by the states that are asked "
        "for, or added to them",
    )

    @property
    def has_product(self) -> bool:
        """Whether modalities' memories give one mean (`memory_fusion`)."""
        return self.memory and self.memory_fusion == "product"

    @model_validator(mode="after")
    def _the_shape_fits(self) -> Self:
        first, last = self.start_half_lives
        if not 1 / 24 <= first < last <= 20 * 365.25:
            raise ValueError("start_half_lives lie between 1/24 and 7305 days, the shorter first")
        if self.width % self.heads or self.wearable_width % self.wearable_heads:
            raise ValueError("width must be a multiple of heads")
        return self
