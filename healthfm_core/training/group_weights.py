"""The weight of each parameter group in a site's update: how many people it was learned from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.federation.parameter_groups import modality_of


def group_weights(sequences: Sequences, groups: Iterable[str]) -> dict[str, float]:
    """Return, for each group, the number of training people whose data it can learn from."""
    labelled = len(np.unique(sequences.label_subject))
    everyone = float(labelled or sequences.n_subjects)
    subject_of_item = np.repeat(np.arange(sequences.n_subjects), np.diff(sequences.offsets))
    holders = {
        "wearable": float(len(np.unique(subject_of_item[sequences.wearable_row >= 0]))),
        "genomics": float(sequences.prs_mask.any(axis=1).sum()),
    }
    return {group: holders.get(modality_of(group) or "", everyone) for group in groups}
