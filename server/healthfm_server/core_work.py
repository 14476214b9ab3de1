"""The real work of the coordinator: vocabulary and initial parameters of `healthfm_core`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from healthfm_core import training
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.federation.protocol import Study
from healthfm_core.tokens.statistics import SiteStatistics, merge
from healthfm_core.tokens.vocabulary import Vocabulary, build_vocabulary
from healthfm_server.work import Arrays


class CoreWork:
    """`StudyWork` as a coordinator really does it."""

    def vocabulary(self, statistics: Sequence[Arrays], tokens: TokensConfig) -> Vocabulary:
        """Return the vocabulary built from the sites' merged statistics.

        Raises:
            ProtocolError: A site's statistics are not what they should be (HF-402).
        """
        merged = merge([SiteStatistics.from_arrays(arrays) for arrays in statistics])
        return build_vocabulary(merged, tokens)

    def initial_parameters(self, study: Study) -> dict[str, npt.NDArray[np.float32]]:
        """Return the parameters of every group of the study's model."""
        return training.initial_parameters(study)
