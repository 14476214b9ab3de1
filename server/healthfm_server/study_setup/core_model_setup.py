"""Vocabulary and initial parameters as `healthfm_core` makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from healthfm_core import training
from healthfm_core.arrays import Float32Arrays
from healthfm_core.config.run import RunConfig
from healthfm_core.federation.protocol import Study
from healthfm_core.tokens.common_ancestors import rolled_up
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.vocabulary import SEVERAL, Vocabulary, build_vocabulary
from healthfm_core.trained import TrainedModel


class CoreModelSetup:
    """`ModelSetup` for the real model."""

    def vocabulary(self, statistics: SiteStatistics, config: RunConfig) -> Vocabulary:
        """Return the vocabulary built from the sites' merged statistics.

        A run that starts from a trained model keeps that model's vocabulary, or its parameters
        would mean something else; only the rate of the new task's label, and how many sites let
        a code out, are these sites' own.

        Raises:
            RunError: The model to start from cannot be read (HF-707).
        """
        built = build_vocabulary(statistics, config.tokens)
        if config.federation.start_from is None:
            return built
        known = TrainedModel.load(Path(config.federation.start_from)).study.vocabulary
        told = rolled_up(statistics, known.become or {})
        here = dict(zip(told.codes, told.sites.tolist(), strict=True))
        sites = tuple(min(SEVERAL, here.get(code, 0)) for code in known.codes)
        return replace(known, label_rate=built.label_rate, sites=sites)

    def learnable(self, vocabulary: Vocabulary, modalities: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the modalities of which the sites let out what an encoder reads."""
        return tuple(name for name in modalities if vocabulary.has(name))

    def initial_parameters(self, study: Study, config: RunConfig) -> Float32Arrays:
        """Return the parameters of every group of the study's model.

        Raises:
            RunError: The model to start from cannot be read (HF-707), or is of another size
                (HF-712).
        """
        fresh = training.initial_parameters(study)
        if config.federation.start_from is None:
            return fresh
        return TrainedModel.load(Path(config.federation.start_from)).start(fresh)
