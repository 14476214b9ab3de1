"""Vectors of codes, averaged over the sites that have the code.

A site moves only the vectors of codes that it has. In a mean over all sites, a code that a tenth of
them has moves a tenth of the way: the more sites, the less a rare code is learned. Dividing by the
share of people at sites that have the code, which round 0 found, gives the mean over those sites
(submodel averaging: Ding et al. 2022, NeurIPS, "Federated Submodel Optimization for Hot and Cold
Data Features"). The factor is the same for all sites, so a sum that hides them allows it too.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from healthfm_core.arrays import ArrayDict, Arrays, Float64
from healthfm_core.tokens.vocabulary import Vocabulary

BY_TOKEN: Final = "encoders.ehr.token.weight"
BY_CODE: Final = tuple(
    f"encoders.ehr.{table}.weight"
    for table in ("code", "slope", "spread", "linear_logit", "remembered")
)


def per_code_mean(means: Arrays, vocabulary: Vocabulary) -> ArrayDict:
    """Return `means` with each code's row as the mean over the sites that have the code.

    Args:
        means: parameter → mean update over all sites; tables of codes are [n_codes, ·] and
            [n_tokens, ·], what is no such table stays as it is.
        vocabulary: Which knows every code's reach.
    """
    share = _share_of_code(vocabulary)
    shares = dict.fromkeys(BY_CODE, share) | {BY_TOKEN: share[vocabulary.token_parts.code]}
    return {
        name: mean / shares[name][:, None] if name in shares else mean
        for name, mean in means.items()
    }


def _share_of_code(vocabulary: Vocabulary) -> Float64:
    """Return [n_codes] the reach of each code index; 1 for those that every site has."""
    share = np.ones(vocabulary.n_codes)
    share[vocabulary.n_codes - len(vocabulary.codes) :] = vocabulary.reach
    return share
