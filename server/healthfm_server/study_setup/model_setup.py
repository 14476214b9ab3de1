"""What the app needs of the model: vocabulary and initial parameters, as a protocol."""

from __future__ import annotations

from typing import Protocol

from healthfm_core.arrays import Float32Arrays
from healthfm_core.config.run import RunConfig
from healthfm_core.federation.protocol import Study
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.vocabulary import Vocabulary


class ModelSetup(Protocol):
    """Builds vocabulary and initial parameters: `CoreModelSetup`, or a test with three numbers."""

    def vocabulary(self, statistics: SiteStatistics, config: RunConfig) -> Vocabulary:
        """Return the vocabulary built from the sites' statistics, merged."""

    def learnable(self, vocabulary: Vocabulary, modalities: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the modalities of which the sites let out what an encoder reads."""

    def initial_parameters(self, study: Study, config: RunConfig) -> Float32Arrays:
        """Return the parameters of every group of the study's model.

        Args:
            study: What the sites agreed on.
            config: The coordinator's own configuration, with what is not sent to sites.
        """
