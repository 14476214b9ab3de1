"""What a search may change and how it searches: a YAML file of ``configs/tune``, or one's own."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from healthfm_core.config import RunConfig
from healthfm_core.config.base import Schema
from healthfm_core.config.compose import packaged_configs, schema_keys
from healthfm_core.config.federation import TuningMetric
from healthfm_core.errors import ConfigError

PLANS: Final = "tune"
"""Folder of ``configs`` with the packaged plans."""
SEARCHED: Final = ("model.", "train.", "tokens.", "federation.")
"""What a search may change: never the people, the task, the seed or how it is scored."""


class SearchRange(Schema):
    """The values one setting may take: from `low` to `high`, or one of `choices` (Optuna's words).

    Whether whole numbers are drawn follows from the setting itself.
    """

    low: float | None = None
    high: float | None = None
    log: bool = Field(False, description="drawn evenly in its logarithm")
    step: float | None = Field(None, gt=0, description="drawn from low, low + step, …")
    choices: tuple[float | int | bool | str, ...] = ()

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> Self:
        bounds = (self.low, self.high)
        if self.choices:
            if bounds != (None, None) or self.log or self.step:
                raise ValueError("a setting has choices, or low and high: not both")
            return self
        if self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("a setting has choices, or low and high with low below high")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("log wants low above 0 and no step")
        return self


class TunePlan(Schema):
    """A search, as its YAML file states it."""

    metric: TuningMetric | None = Field(
        None,
        description="federated tuning metric to raise; None: tuning_auroc of a label, "
        "tuning_average_precision_new_onset of next visits",
    )
    space: dict[str, SearchRange] = Field(min_length=1, description="setting → values")
    trials: int = Field(20, ge=1, description="how many settings are tried")
    startup_trials: int = Field(
        6, ge=1, description="drawn at random before the sampler (TPE) learns from the others"
    )
    seeds: int = Field(1, ge=1, description="seeds of each trial; its value is their mean")
    folds: int = Field(1, ge=1, description="folds of each trial, where the protocol has several")
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median", description="which trials are given up before their last round"
    )
    rungs: int = Field(
        5, ge=1, description="how often between first and last round a trial is looked at"
    )

    @model_validator(mode="after")
    def _settings_are_searchable(self) -> Self:
        known = dict(schema_keys())
        for key in self.space:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                raise ValueError(f"no setting is called {key}; the nearest is {close or 'none'}")
            if not key.startswith(SEARCHED) or key.startswith("federation.early_stopping"):
                raise ValueError(f"{key} is not searched: {', '.join(SEARCHED)} are")
        return self

    def metric_of(self, config: RunConfig) -> TuningMetric:
        """Return the metric to raise in runs of `config`."""
        if self.metric is not None:
            return self.metric
        if config.label_task is not None:
            return "tuning_auroc"
        return "tuning_average_precision_new_onset"


def read_tune_plan(name: str, changes: dict[str, Any]) -> TunePlan:
    """Read a plan.

    Args:
        name: A packaged plan, or a file of one's own.
        changes: Key → value, from the command line; None changes nothing.

    Raises:
        ConfigError: HF-104 where there is none, HF-102 or HF-103 where it is wrong.
    """
    own = Path(name)
    path = own if own.suffix == ".yaml" else packaged_configs() / PLANS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(f.stem for f in (packaged_configs() / PLANS).glob("*.yaml")))
        raise ConfigError(
            104,
            where=f"--plan {name}",
            seen="there is no such file",
            wanted=f"a YAML file of one's own, or one of {known}",
            do="Name one of those",
        )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        given = {key: value for key, value in changes.items() if value is not None}
        return TunePlan.model_validate({**raw, **given})
    except (yaml.YAMLError, TypeError) as error:
        raise _wrong(path, 102, " ".join(str(error).split())[:200], "YAML of key: value") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the plan"
        wanted = first["msg"].removeprefix("Value error, ")
        number = 103 if first["type"] == "value_error" else 102
        raise _wrong(path, number, f"{key} is wrong", wanted) from None


def _wrong(path: Path, number: int, seen: str, wanted: str) -> ConfigError:
    return ConfigError(number, where=str(path), seen=seen, wanted=wanted, do="Correct the file")
