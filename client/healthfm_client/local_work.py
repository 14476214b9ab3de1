"""The seam between the app and local work: stores, statistics, tokens, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from healthfm_core.arrays import ArrayDict, Float32
from healthfm_core.config.data import Modality
from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.training import DriftCorrection, PrivacyPlan


@dataclass(frozen=True)
class StoreSpec:
    """One store of the site and what of it may be used; hashable, so that it can key a cache.

    Attributes:
        path: Its folder.
        modalities: What of it may be used.
        ids: Stores of one word mean the same person by the same id. A real site's all do; a
            simulation that puts several hospitals' records in one place has a word for each.
    """

    path: Path
    modalities: tuple[Modality, ...]
    ids: str = ""


class LocalWork(Protocol):
    """What the app needs done; `CoreLocalWork` does it, a test may do it with three numbers."""

    def describe(self, stores: Sequence[StoreSpec]) -> tuple[frozenset[str], int]:
        """Return the modalities the stores hold and their number of subjects, each counted once."""

    def statistics(
        self, stores: Sequence[StoreSpec], tokens: TokensConfig, task: str | None
    ) -> ArrayDict:
        """Return what the vocabulary is made from: counts over k and mergeable sketches.

        Labels are counted of `task` alone.
        """

    def load(self, stores: Sequence[StoreSpec], study: Study) -> Any:
        """Return the stores as the study reads them, tokenised."""

    def coverage(self, stores: Sequence[StoreSpec], study: Study, k_min: int) -> dict[str, float]:
        """Return how much of the site's record the study's vocabulary covers, and others share.

        Nothing of fewer than `k_min` people is told.
        """

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

    def train_round(
        self,
        parameters: Mapping[str, Float32],
        data: Any,
        study: Study,
        order: RoundOrder,
        private: PrivacyPlan | None = None,
        drift: DriftCorrection | None = None,
    ) -> RoundResult:
        """Train from `parameters` and return the update.

        Args:
            parameters: The global ones.
            data: What `load` returned.
            study: The study.
            order: Which round, which groups, which seed.
            private: Noise in training; None trains without.
            drift: Added to the direction of every step; None adds nothing.
        """

    def plan_privacy(self, data: Any, study: Study, config: PrivacyConfig) -> PrivacyPlan:
        """Return the noise, sampling rate and steps of the study's private rounds."""
