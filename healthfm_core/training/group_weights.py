"""The weight of each parameter group in a site's update: how many people it was learned from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.federation.parameter_groups import modality_of
from healthfm_core.modalities.registry import holders


def group_weights(sequences: Sequences, groups: Iterable[str]) -> dict[str, float]:
    """Return, for each group, the number of training people whose data it can learn from."""
    labelled = len(np.unique(sequences.label_subject))
    everyone = float(labelled or sequences.n_subjects)
    who = {group: holders(modality_of(group), sequences) for group in groups}
    return {group: everyone if has is None else float(has.sum()) for group, has in who.items()}
