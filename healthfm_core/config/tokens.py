"""Configuration group ``tokens``: from events to rows of tokens."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema


class CodeCondition(Schema):
    """What an event has to be: one of some codes, its value beyond a limit where one is given."""

    codes: tuple[str, ...] = Field(min_length=1, description="the site's own codes")
    descendants: bool = Field(
        True, description="codes below them, by the stores' metadata/codes.parquet, count as well"
    )
    above: float | None = Field(None, description="the value is above it, in the code's unit")
    below: float | None = Field(None, description="the value is below it, in the code's unit")

    @model_validator(mode="after")
    def _some_value_fits(self) -> Self:
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("no value is above `above` and below `below`")
        return self


ConceptSets = dict[str, tuple[CodeCondition, ...]]
"""Name → conditions, of which one suffices."""


class TokensConfig(Schema):
    """How a record becomes tokens."""

    domains: tuple[str, ...] = Field(
        (),
        description="codes of these domains alone take part, e.g. [DX,LAB] (what stands before "
        "the first //, or a whole code); () is all",
    )
    k_min: int = Field(20, ge=1, description="a code leaves a site when k of its subjects have it")
    common_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a code without values that fewer than this share of the sites know becomes "
        "the nearest of its ancestors that as many know, two sites at least, four levels up at "
        "most, by the stores' metadata/codes.parquet or the form of ICD and ATC codes; 0: off",
    )
    value_bins: int = Field(10, ge=2, le=100, description="quantile bins of a numeric code")
    max_len: int = Field(256, ge=8, description="most recent tokens kept of a subject, statics too")
    max_codes: int = Field(8192, ge=1)
    max_targets: int = Field(256, ge=1, description="most frequent codes next_visit predicts")
    concept_sets: ConceptSets = Field(
        default_factory=dict,
        description="targets by name, each a list of conditions of which one suffices, e.g. "
        "hyperkalaemia: [{codes: [LAB//K], above: 5.5}]; they are targets whatever max_targets",
    )
    max_queries: int = Field(16, ge=1, description="SEP and NOW tokens per row, the latest kept")
    max_wearable_tokens: int = Field(168, ge=1, description="latest wearing tokens kept")
    visit_gap_hours: float = Field(
        0.0, ge=0, description="events at most this far apart belong to one visit; 0: same time"
    )
    bin_hours: float = Field(
        0.0,
        ge=0,
        description="numeric events of one code in one bin become one token of their mean; a bin "
        "ends at every prediction time; 0: off",
    )
    bin_spread: bool = Field(
        False,
        description="a bin's token also tells its lowest, highest, first and last value, and how "
        "many there were; codes without values fall into bins too",
    )
    wearable_token_s: float | None = Field(
        None,
        gt=0,
        description="wearing pooled into one token; None: an hour, of a slower device one sample",
    )
    wearable_window_s: float | None = Field(
        None,
        gt=0,
        description="one window of the wearable encoder, at most a token; None: a quarter of an "
        "hour, of a slower device one sample",
    )
    device: str | None = Field(
        None, description="device folder of the stores; None: all of one rate, and others' levels"
    )
