"""The real local work: stores, statistics, tokens and training of `healthfm_core`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from healthfm_client.local_work import StoreSpec
from healthfm_core import training
from healthfm_core.arrays import ArrayDict, Float32
from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.joined_stores import StoreView, join_stores
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import StoreError
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.held_out.held_out_people import HeldOutPeople, may_be_judged
from healthfm_core.held_out.site_evaluation import FEDERATED, SiteEvaluation
from healthfm_core.seeding import numpy_generator
from healthfm_core.tokens.coverage import coverage
from healthfm_core.tokens.statistics import site_statistics

_CHANGED: Final = 214
_ATTEMPTS: Final = 3


class CoreLocalWork:
    """`LocalWork` as a site really does it."""

    def describe(self, stores: Sequence[StoreSpec]) -> tuple[frozenset[str], int]:
        """Return the modalities the stores hold and their number of subjects, each counted once.

        Raises:
            StoreError: A store is missing, half-written or not MEDS, or two contradict each other
                about a person (HF-2xx).
        """
        views = opened(stores)
        held = frozenset[str]().union(*(store.modalities for store in views))
        return held, sum(len(store.subjects()) for store in views)

    def statistics(
        self, stores: Sequence[StoreSpec], tokens: TokensConfig, task: str | None
    ) -> ArrayDict:
        """Return counts over k and mergeable sketches of the training people."""
        return dict(site_statistics(opened(stores), tokens, task=task).to_arrays())

    def load(self, stores: Sequence[StoreSpec], study: Study) -> training.SiteData:
        """Return the stores' people tokenised by the study's vocabulary.

        Raises:
            StoreError: See `SiteData.load`; HF-214 only for a store that changes again and again.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return training.SiteData.load(opened(stores), study)
            except StoreError as error:
                if error.number != _CHANGED:
                    raise
        return training.SiteData.load(opened(stores), study)

    def coverage(self, stores: Sequence[StoreSpec], study: Study, k_min: int) -> dict[str, float]:
        """Return how much of the site's record the study's vocabulary covers, and others share."""
        domains = study.config.tokens.domains
        return coverage(opened(stores), study.vocabulary, domains=domains, k_min=k_min)

    def held_out_metrics(
        self,
        parameters: Mapping[str, Float32],
        stores: Sequence[StoreSpec],
        data: Any,
        study: Study,
        k: int,
    ) -> dict[str, float]:
        """Return how a model does on the held-out people, by the names of `SiteEvaluation`.

        Nothing of fewer than `k` people is told.
        """
        if not may_be_judged(study, data.modalities):
            return {}
        held_out = HeldOutPeople.load(opened(stores), study, data.intercepts)
        evaluation = study.config.evaluation
        told = SiteEvaluation.of(
            {FEDERATED: held_out.predictions(parameters)},
            held_out.groups(),
            task=evaluation.task,
            k=k,
            bootstraps=evaluation.bootstraps,
            rng=numpy_generator(study.config.seed, "held out bootstrap"),
        )
        return told.to_metrics()

    def train_round(
        self,
        parameters: Mapping[str, Float32],
        data: Any,
        study: Study,
        order: RoundOrder,
        private: training.PrivacyPlan | None = None,
        drift: training.DriftCorrection | None = None,
    ) -> RoundResult:
        """Train from `parameters` and return the update."""
        return training.train_round(parameters, data, study, order, private, drift)

    def plan_privacy(self, data: Any, study: Study, config: PrivacyConfig) -> training.PrivacyPlan:
        """Return the noise, sampling rate and steps of the study's private rounds."""
        return training.plan_privacy(data.train, study, config)


def opened(stores: Sequence[StoreSpec]) -> list[StoreView]:
    """Open the stores so that nobody is in two of them.

    Raises:
        StoreError: A store cannot be used, or two contradict each other about a person (HF-2xx).
    """
    by_ids: dict[str, list[SiteStore]] = {}
    for spec in stores:
        store = SiteStore.open(spec.path, modalities=spec.modalities)
        by_ids.setdefault(spec.ids, []).append(store)
    return [view for same_ids in by_ids.values() for view in join_stores(same_ids)]
