"""Configuration group ``data``: which people, and how they fall into sites."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from healthfm_core.config.base import Schema
from healthfm_core.modalities.registry import modality_names, unknown_names

Source = Literal["cohort", "stores", "physionet2012", "eicu_demo", "nhanes"]


def known_modality(name: str) -> str:
    """Return `name`, or complain as pydantic's validators do."""
    if unknown_names([name]):
        *most, last = map(repr, modality_names())
        wanted = f"Input should be {', '.join(most)} or {last}"
        raise PydanticCustomError("unknown_modality", "{wanted}", {"wanted": wanted})
    return name


Modality = Annotated[str, AfterValidator(known_modality)]
"""The name of one of `healthfm_core.modalities`."""


class CohortConfig(Schema):
    """A simulated cohort, whose generating process is known."""

    subjects: int = Field(2400, ge=20)
    sites: int = Field(6, ge=1)
    years: float = Field(6.0, gt=0, description="mean observed history in years")
    conditions: int = Field(24, ge=2, description="diagnosis codes that are prediction targets")
    drugs: int = Field(16, ge=0)
    labs: int = Field(8, ge=0)
    latents_fast: int = Field(2, ge=1)
    latents_slow: int = Field(2, ge=1)
    half_life_fast_days: float = Field(20.0, gt=0)
    half_life_slow_days: float = Field(700.0, gt=0)
    prs: int = Field(6, ge=0)
    prs_effect: float = Field(1.0, ge=0, description="log hazard per SD of the condition's score")
    ancestries: int = Field(
        1, ge=1, le=8, description="groups of people; with more than one, a static code names them"
    )
    ancestry_first: float = Field(
        0.7, gt=0, lt=1, description="share of people in the first group; the others share the rest"
    )
    ancestry_shift: float = Field(
        1.0, ge=0, description="SD over the groups of a raw score's mean, in its SD within a group"
    )
    prs_portability: float = Field(
        0.5, ge=0, le=1, description="share of a score's effect that holds outside the first group"
    )
    prs_normalised: Literal["ancestry", "site"] = Field(
        "ancestry",
        description="z within the person's group; or over all of the site's people with scores, "
        "which leaves the groups' shift in",
    )
    wearable_hours: int = Field(48, ge=0, description="worn hours kept before each visit, at most")
    worn_hours: int = Field(60, ge=0, description="worn hours of one subject in all, about")
    wearable_noise: float = Field(0.7, ge=0, description="SD of a reading given the latent")
    without_wearable: float = Field(0.5, ge=0, le=1, description="share of sites that lack it")
    without_genomics: float = Field(0.5, ge=0, le=1, description="share of sites that lack it")
    size_skew: float = Field(2.0, gt=0, description="Dirichlet alpha of the site sizes")
    held_out: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="share of people who are held out; the others train and tune, 70 to 15",
    )
    label_shift: float = Field(0.5, ge=0, description="SD of a site's log-rate offset per code")
    label_alpha: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="instead of label_shift: Dirichlet alpha of the sites' shares of each "
        "condition's rate; .1 leaves most conditions to one site, 100 shares them evenly",
    )
    gap_scale: float = Field(
        1.0, ge=0.05, le=20, description="factor on the gaps between visits at gap_sites"
    )
    gap_sites: tuple[str, ...] = Field(
        (), description="sites (site-00, …) whose people come more rarely; nothing else differs"
    )
    code_dialect: float = Field(0.0, ge=0, le=1, description="share of codes a site renames")
    code_variants: int = Field(
        1, ge=1, le=9, description="codes below each condition's that sites write it as; 1: its own"
    )
    code_habit: float = Field(
        0.3,
        gt=0,
        le=1000,
        description="Dirichlet alpha of a site's shares of these codes: .1 leaves it mostly one, "
        "100 all alike",
    )


class DataConfig(Schema):
    """Where the people come from."""

    source: Source = "cohort"
    path: str | None = Field(None, description="folder of the raw data; None is the default place")
    stores: tuple[str, ...] = Field((), description="site stores, when source is 'stores'")
    modalities: dict[str, tuple[Modality, ...]] = Field(
        default_factory=dict,
        description="site name → modalities it may use; a site not named uses all it holds",
    )
    cycle_modalities: tuple[tuple[Modality, ...], ...] = Field(
        (),
        description="deals these sets of modalities out over the sites in equal runs; () is all",
    )
    cohort: CohortConfig = CohortConfig()
