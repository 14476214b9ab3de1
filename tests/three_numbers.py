"""A model of a few numbers in place of the real one, injected at the apps' two seams.

A site's data is one number, `pull`: in a round it moves every parameter it holds half of the way
to its pull, plus a little noise from the order's seed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.local_work import StoreSpec
from healthfm_core.arrays import ArrayDict, Float32, Float32Arrays
from healthfm_core.config import RunConfig
from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.federation.parameter_groups import group_of, modality_of
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.modalities.registry import modality_names
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.values import Sketch
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_core.training import DriftCorrection, PrivacyPlan
from healthfm_simulations.engine import Apps, NodeSpec

SHAPES = {
    "encoders.ehr.w": (2, 3),
    "encoders.genomics.w": (1,),
    "encoders.wearable.w": (2,),
    "encoders.wearable.b": (),
    "backbone.w": (3,),
    "heads.next_visit.w": (3, 1),
    "heads.masked_wearable.w": (2,),
}

VOCABULARY = Vocabulary(
    codes=("A",),
    domains=("A",),
    value_bins=10,
    percentiles={},
    targets=("A",),
    target_rates=(0.5,),
    onset_rates=(0.5,),
    label_rate=0.0,
    panel=(),
    wearable=None,
    reach=(1.0,),
)


class ServerWork:
    """Vocabulary and initial parameters of the small model."""

    def learnable(self, vocabulary: Vocabulary, modalities: tuple[str, ...]) -> tuple[str, ...]:
        return modalities

    def vocabulary(self, statistics: SiteStatistics, config: RunConfig) -> Vocabulary:
        """The sites' counts are there, and every study has the same vocabulary."""
        assert statistics.subjects.tolist()
        return VOCABULARY

    def initial_parameters(self, study: Study, config: RunConfig) -> Float32Arrays:
        """Ones, for the groups of the study's modalities."""
        return {
            name: np.ones(shape, np.float32)
            for name, shape in SHAPES.items()
            if modality_of(group_of(name)) in {None, *study.modalities}
        }


class ClientWork:
    """Training of the small model; `misbehave` says what a site does wrong, and when."""

    def __init__(self, misbehave: Mapping[str, str] | None = None, round_: int = 1) -> None:
        self.misbehave = misbehave or {}
        self.round = round_
        self.private: list[PrivacyPlan | None] = []

    def describe(self, stores: Sequence[StoreSpec]) -> tuple[frozenset[str], int]:
        """What site.json says, less what the view forbids."""
        raw = _raw(stores)
        return frozenset(raw["modalities"]) & set(stores[0].modalities), raw["n"]

    def statistics(
        self, stores: Sequence[StoreSpec], tokens: TokensConfig, task: str | None
    ) -> ArrayDict:
        """The number of people, as those who have the one code."""
        held, n = self.describe(stores)
        return counts_of(n, held)

    def load(self, stores: Sequence[StoreSpec], study: Study) -> Any:
        """The site's number."""
        return {**_raw(stores), "name": stores[0].path.name}

    def coverage(self, stores: Sequence[StoreSpec], study: Study, k_min: int) -> dict[str, float]:
        """Everything is covered."""
        return {"coverage_exact": 1.0}

    def held_out_metrics(
        self,
        parameters: Mapping[str, Float32],
        stores: Sequence[StoreSpec],
        data: Any,
        study: Study,
        k: int,
    ) -> dict[str, float]:
        """How far the model is from the site's number, of whom it has none in training."""
        far = abs(float(parameters["backbone.w"].mean()) - float(data["pull"]))
        told = {"held_out/overall/auroc": far, "held_out/overall/n_subjects": float(data["n"])}
        return told | {"held_out/secret": float(k)}

    def train_round(
        self,
        parameters: Mapping[str, Float32],
        data: Any,
        study: Study,
        order: RoundOrder,
        private: PrivacyPlan | None = None,
        drift: DriftCorrection | None = None,
    ) -> RoundResult:
        """Move half of the way to the site's number: one step of rate ½ down its slope."""
        noise = np.random.default_rng(order.seed)
        update = {
            name: np.asarray(
                0.5 * (data["pull"] - value) + 0.01 * noise.standard_normal(value.shape),
                np.float32,
            )
            for name, value in sorted(parameters.items())
        }
        for name, value in ({} if drift is None else drift.values).items():
            update[name] = np.asarray(update[name] - np.float32(0.5) * value, np.float32)
        for value in parameters.values():
            value += 1000  # a site may write to what it received: it is its own
        weights = {group: float(data["n"]) for group in order.groups}
        wrong = self.misbehave.get(data["name"]) if order.round == self.round else None
        if wrong is not None:
            update, weights = _spoil(wrong, update, weights)
        self.private.append(private)
        metrics = {"loss_pull": float(data["pull"]), "secret": 1.0}
        return RoundResult(update, weights, metrics, learning_rate_sum=0.5)

    def plan_privacy(self, data: Any, study: Study, config: PrivacyConfig) -> PrivacyPlan:
        """Ten steps a round, of a tenth of the people, with noise 4 unless it is given.

        Shared noise is as large as everybody's.
        """
        if config.mode == "distributed":
            return PrivacyPlan.shared(config, study.config.federation.rounds)
        noise = config.noise_multiplier or 4.0
        return PrivacyPlan(config, Mechanism(noise, 0.1, 10), study.config.federation.rounds)


def _spoil(
    wrong: str, update: ArrayDict, weights: dict[str, float]
) -> tuple[ArrayDict, dict[str, float]]:
    match wrong:
        case "nan":
            update["backbone.w"][1] = np.nan
        case "huge":
            update["backbone.w"][1] = 1e9
        case "overflow":
            update["backbone.w"][1] = 3e38
        case "long":
            update["backbone.w"] *= np.float32(60)
        case "shape":
            update["backbone.w"] = update["backbone.w"][:2]
        case "missing":
            del update["backbone.w"]
        case "extra":
            update["backbone.more"] = np.zeros(3, np.float32)
        case "dtype":
            update["backbone.w"] = update["backbone.w"].astype(np.float64)
        case "weight":
            weights["backbone"] = 1e6
        case "raise":
            raise RuntimeError("a subject's name that must not leave")
        case "interrupt":
            raise KeyboardInterrupt
    return update, weights


def counts_of(n: int, modalities: Collection[str]) -> ArrayDict:
    """Statistics of a site whose n people all have the code A and all its modalities."""
    one, none, real = np.array([n], np.int64), np.zeros(0, np.int64), np.zeros(0)
    found = SiteStatistics(
        codes=("A",),
        subjects=one,
        timed_subjects=one,
        visits=one,
        reached=one,
        sites=np.ones(1, np.int64),
        all_visits=one,
        sketch=Sketch(none.astype(np.int32), none.astype(np.int32), none),
        panel=(),
        panel_subjects=none,
        panel_sites=none,
        channels=(),
        channel_subjects=none,
        channel_sum=real,
        channel_square=real,
        channel_hz=real,
        channel_sites=none,
        modality_subjects=np.array([n * (m in modalities) for m in modality_names()], np.int64),
        label_values=np.zeros(2, np.int64),
    )
    return dict(found.to_arrays())


def _raw(stores: Sequence[StoreSpec]) -> Any:
    return json.loads((stores[0].path / "site.json").read_text())


def apps(misbehave: Mapping[str, str] | None = None, round_: int = 1) -> Apps:
    """The two seams."""
    return Apps(ServerWork(), ClientWork(misbehave, round_))


def site(
    folder: Path, name: str, *, pull: float, n: int = 10, modalities: Sequence[str] = ("ehr",)
) -> NodeSpec:
    """Write a site's file and return the node."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    text = json.dumps({"pull": pull, "n": n, "modalities": list(modalities)})
    (folder / name / "site.json").write_text(text)
    return NodeSpec(name, [(folder / name, None)])


def three_sites(folder: Path) -> list[NodeSpec]:
    """Two sites with wearables, one without; nobody has scores."""
    return [
        site(folder, "a", pull=1.0, n=10, modalities=("ehr", "wearable")),
        site(folder, "b", pull=2.0, n=20, modalities=("ehr",)),
        site(folder, "c", pull=3.0, n=30, modalities=("ehr", "wearable")),
    ]


def config(**federation: Any) -> RunConfig:
    """A configuration of three rounds unless told otherwise."""
    told = {"seed": 3, "tokens": {"k_min": 1}, "federation": {"rounds": 3, **federation}}
    return RunConfig.model_validate(told)
