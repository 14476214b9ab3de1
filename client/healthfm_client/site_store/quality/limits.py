"""The file of limits and thresholds: the packaged one, or a site's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final, Literal, Self

import yaml
from pydantic import Field, NonNegativeFloat, ValidationError, model_validator

from healthfm_core.config.base import Schema
from healthfm_core.errors import ConfigError

PACKAGED: Final = "limits.yaml"


class ValueLimits(Schema):
    """Between which bounds a code's values are to be believed."""

    code: str = Field(min_length=1, description="of the store, with its unit")
    name: str = Field("", description="for a person to read")
    low: float
    high: float
    from_age: float = Field(0.0, ge=0, description="years")
    to_age: float | None = Field(None, gt=0, description="years; not included")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    @property
    def of_an_age(self) -> bool:
        """Whether the bounds are of people of some ages only."""
        return self.from_age > 0 or self.to_age is not None


class QualityLimits(Schema):
    """What a check may find before it fails."""

    thresholds: dict[str, NonNegativeFloat]
    fewest_rows: int = Field(20, ge=1)
    days_after_death: int = Field(60, ge=0)
    standard: tuple[str, ...]
    of_one_sex: dict[str, Literal["F", "M"]] = Field(default_factory=dict)
    values: tuple[ValueLimits, ...]

    @classmethod
    def read(cls, file: Path | None = None) -> Self:
        """Return what a file says, the packaged one where there is none.

        Raises:
            ConfigError: The file is missing (HF-104) or cannot be used (HF-102).
        """
        try:
            text = packaged() if file is None else file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                104,
                where=str(file),
                seen="there is no such file, or it is no text",
                wanted="a YAML file of limits",
                do="Print the usual ones with check --show-limits, and change them",
            ) from error
        try:
            read = cls.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError) as error:
            raise _unusable(file, error) from error
        unknown = sorted(set(cls._known()) ^ set(read.thresholds))
        if file is not None and unknown:
            raise _unusable(file, ValueError(f"thresholds: {unknown[0]} is missing or unknown"))
        return read

    @classmethod
    def _known(cls) -> list[str]:
        return list(yaml.safe_load(packaged())["thresholds"])


def packaged() -> str:
    """Return the text of the limits that are used where no others are given."""
    return files(__package__).joinpath(PACKAGED).read_text("utf-8")


def _unusable(file: Path | None, error: Exception) -> ConfigError:
    where, seen = str(file or PACKAGED), str(error) or "it is not YAML"
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        where = f"{where}, {'.'.join(map(str, first['loc'])) or 'top level'}"
        seen = str(first["msg"]).removeprefix("Value error, ")
    elif isinstance(error, yaml.YAMLError):
        seen = "it is not YAML"
    return ConfigError(
        102,
        where=where,
        seen=seen,
        wanted="the keys that check --show-limits prints",
        do="Correct the file; the source need not be read again",
    )
