"""What an experiment asks: variants of one configuration, seeds, and what to tabulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from healthfm_core.config import RunConfig
from healthfm_core.config.base import Schema
from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError

PLAN_FILE: Final = "experiment.yaml"
MODEL: Final = "model"
"""Folder, within a run's, of a model that other variants start from."""
CATALOGUE: Final = Path(__file__).parents[2] / "experiments"
"""The checkout's own experiments; an installed wheel brings none."""


class MetricSelector(Schema):
    """Which number of a run."""

    subset: str = "new_onset"
    metric: str = "average_precision"
    task: str | None = Field(None, description="None: the run's own task, which comes first")
    site: str | None = Field(None, description="among this site's own test people; None: all")


class TableColumn(MetricSelector):
    """One column of the table."""

    title: str = Field("", description="heading; empty: made from the others")
    mean: Literal["arithmetic", "geometric"] = Field(
        "arithmetic",
        description="over the seeds; geometric, with its interval, for what is off by factors, as "
        "half-lives are",
    )

    @model_validator(mode="after")
    def _has_a_mean(self) -> Self:
        if self.mean == "geometric" and self.metric != "days":
            raise ValueError("mean=geometric is of metric=days, which is always above 0")
        return self


class ComparisonSide(Schema):
    """One side of a comparison."""

    variant: str | None = Field(None, description="None: each variant in turn")
    arm: str = "federated"


class ArmComparison(MetricSelector):
    """Two sides held against each other seed by seed, with a 95 % t interval over the seeds."""

    of: ComparisonSide = ComparisonSide()
    to: ComparisonSide = ComparisonSide()
    kind: Literal["difference", "share", "gain"] = Field(
        "difference",
        description="of minus to, of as a share of to, or what of gains over chance as a share of "
        "what to gains (AUROC, whose chance is .5; else name the arm that is chance)",
    )
    chance: str | None = Field(
        None,
        description="for kind=gain: the arm that ranks by chance, in the variant of to; "
        "repeat_history on new onsets, whom it gives one score",
    )

    @model_validator(mode="after")
    def _chance_is_known(self) -> Self:
        if self.kind == "gain" and self.metric != "auroc" and self.chance is None:
            raise ValueError(
                "kind=gain is of metric=auroc, whose chance is .5 for everybody, or names in "
                "chance the arm that ranks by chance"
            )
        return self


class SiteTable(Schema):
    """A table of what each site gains: `of` minus `to` among its own test people."""

    of: str = "federated"
    to: str = "local"
    subset: str = "new_onset"
    metric: str = "average_precision"


class ExperimentPlan(Schema):
    """An experiment, as its ``experiment.yaml`` states it."""

    question: str = Field(min_length=10)
    time: str = Field(min_length=1, description="what it takes, about: '40 min on one core'")
    cheap: bool = Field(False, description="whether `make experiments` runs it")
    seeds: int = Field(3, ge=1, le=100)
    first_seed: int = Field(0, ge=0)
    base: tuple[str, ...] = Field((), description="overrides that every variant has")
    variants: dict[str, tuple[str, ...]] = Field(
        min_length=1, description="name → overrides of its own, stronger than the base"
    )
    starts: dict[str, str] = Field(
        default_factory=dict,
        description="variant → an earlier one whose model of the same seed it starts from",
    )
    arms: tuple[str, ...] = Field(
        ("federated",), min_length=1, description="arms and baselines tabulated, in this order"
    )
    columns: tuple[TableColumn, ...] = Field((TableColumn(),), min_length=1)
    comparisons: tuple[ArmComparison, ...] = ()
    by_site: SiteTable | None = None

    @model_validator(mode="after")
    def _starts_are_earlier(self) -> Self:
        order = list(self.variants)
        for variant, start in self.starts.items():
            if not {variant, start} <= set(order) or order.index(start) >= order.index(variant):
                raise ValueError(f"{variant!r} starts from {start!r}, which is no earlier variant")
        return self

    @model_validator(mode="after")
    def _sides_are_variants(self) -> Self:
        for one in self.comparisons:
            for side in (one.of, one.to):
                if side.variant is not None and side.variant not in self.variants:
                    raise ValueError(f"a comparison names {side.variant!r}, which is no variant")
            if one.of == one.to:
                raise ValueError("a comparison holds one thing against itself")
        return self

    def config(self, variant: str, seed: int, out: Path | None = None) -> RunConfig:
        """Return the configuration of one run.

        Args:
            variant: Which.
            seed: Which.
            out: Folder of the experiment's runs; None leaves out the model to start from.

        Raises:
            ConfigError: HF-1xx, an override is wrong.
        """
        settings = [*self.base, *self.variants[variant], f"seed={seed}"]
        if out is not None and variant in self.starts:
            model = folder_of(out, self.starts[variant], seed) / MODEL
            settings.append(f"federation.start_from='{model}'")
        return compose(settings)


def folder_of(out: Path, variant: str, seed: int) -> Path:
    """Return the folder of one run."""
    return out / slug(variant) / f"seed-{seed}"


def slug(variant: str) -> str:
    """Return a folder's name for a variant: its letters, digits and dots, joined by dashes."""
    kept = "".join(c if c.isalnum() or c == "." else " " for c in variant)
    return "-".join(kept.split())


def read_plan(folder: Path) -> ExperimentPlan:
    """Read the plan in `folder`, and check that every variant composes.

    Raises:
        ConfigError: HF-104 where there is none, HF-101, HF-102 or HF-103 where it is wrong.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        known = ", ".join(sorted(experiment.name for experiment in catalogue())) or "none here"
        raise ConfigError(
            104,
            where=str(folder),
            seen=f"there is no {PLAN_FILE} in it",
            wanted=f"an experiment is a folder with one; the catalogue's are {known}",
            do="Name one of those, or a folder of your own",
        )
    try:
        plan = ExperimentPlan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise _wrong(path, 102, " ".join(str(error).split()), "YAML that can be read") from error
    except ValidationError as error:
        raise _refusal(path, error) from None
    for variant in plan.variants:
        plan.config(variant, plan.first_seed)
    return plan


def find(name: str) -> Path:
    """Return the folder called `name`: a path that exists, or a name of the catalogue."""
    own = Path(name)
    return own if own.is_dir() else CATALOGUE / name


def catalogue() -> list[Path]:
    """Return the folders of the checkout's experiments, sorted."""
    return sorted(path.parent for path in CATALOGUE.glob(f"*/{PLAN_FILE}"))


def _refusal(path: Path, error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"])) or "the plan"
    if first["type"] == "extra_forbidden":
        return _wrong(path, 101, f"there is no key {key}", "a key of the plan", "Correct the key")
    wanted = first["msg"].removeprefix("Value error, ")
    number = 103 if first["type"] == "value_error" else 102
    return _wrong(path, number, f"{key} is {_shown(first)}", wanted)


def _shown(complaint: Any) -> str:
    if complaint["type"] == "missing":
        return "missing"
    return "contradictory" if complaint["type"] == "value_error" else "wrong"


def _wrong(
    path: Path, number: int, seen: str, wanted: str, do: str = "Correct the file"
) -> ConfigError:
    return ConfigError(number, where=str(path), seen=seen, wanted=wanted, do=do)
