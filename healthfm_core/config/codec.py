"""Configuration block ``federation.codec``: in how many bits updates travel."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from healthfm_core.config.base import Schema

Codec = Literal["none", "fp16", "bf16", "int8"]

BYTES: Final[Mapping[str, float]] = MappingProxyType(
    {"none": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0 + 4 / 256}
)
"""Codec → bytes of a number as it travels, before zstd; of int8 with its share of a scale."""


class CodecConfig(Schema):
    """How what travels each round is written; what a codec leaves out goes with the next round."""

    uplink: Codec = Field(
        "none",
        description="updates to the coordinator: none is float32; fp16 and bf16 take half; int8, "
        "by blocks with stochastic rounding, a quarter",
    )
    downlink: Codec = Field(
        "none",
        description="the model to the sites: none is float32, whole; else a change of what a site "
        "holds from the last round, in as many bits as in uplink; who lacks that gets it whole",
    )
    top_k: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of each parameter's numbers that an update brings, the largest; "
        "None: all",
    )

    @property
    def uplink_bytes(self) -> float:
        """Bytes that a number of the model takes in an update, at most."""
        each = BYTES[self.uplink]
        return each if self.top_k is None else self.top_k * each + 1 / 8  # a bit says whether

    @model_validator(mode="after")
    def _what_is_chosen_is_written(self) -> Self:
        if self.top_k is not None and self.uplink == "none":
            raise ValueError(
                "federation.codec.top_k says how much of an encoded update is sent: name its "
                "codec with federation.codec.uplink, for example int8"
            )
        return self
