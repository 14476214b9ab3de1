"""How a model does for each group of a site's held-out people, where the group may be told of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from healthfm_core.evaluation.analyses.subgroups import Groups, SubgroupRow, subgroup_rows
from healthfm_core.evaluation.predictions import Predictions, Subset
from healthfm_core.held_out.risk_bins import is_enough


def told_group_rows(
    predictions: Predictions,
    groups: Groups,
    *,
    subset: Subset,
    arm: str,
    k: int,
    bootstraps: int,
    rng: np.random.Generator,
) -> Iterator[SubgroupRow]:
    """Yield the rows of the groups that may be told of, and one that says so of each other group.

    A row's `n_subjects` is how many of the group were asked about at all, so that the groups of an
    attribute add up to everybody; its `n_cases` is not told, since the shown groups' would tell the
    withheld ones' by subtraction.

    Args:
        predictions: Of everybody that was asked about.
        groups: Who is in which group.
        subset: Which rows the metrics are of.
        arm: Whose predictions they are.
        k: A group is withheld where fewer people have the outcome, or fewer have it not; and the
            smallest others with them, until as many people are in withheld groups.
        bootstraps: Replicates over the group's people.
        rng: Where their draws come from.
    """
    found = subgroup_rows(
        {arm: predictions}, groups, k=k, bootstraps=bootstraps, rng=rng, subset=subset
    )
    for attribute in groups.labels:
        counts = _people(predictions, groups, attribute)
        hidden = _hidden(predictions.subset(subset), groups, attribute, counts, k)
        hidden |= {r.group for r in found if r.withheld and r.attribute == attribute}
        for group in sorted(hidden):
            yield _withheld_row(attribute, group)
        for row in found:
            if row.attribute == attribute and row.group not in hidden:
                yield replace(row, n_subjects=counts[row.group], n_cases=None)


def _people(predictions: Predictions, groups: Groups, attribute: str) -> dict[str, int]:
    names = groups.of(attribute, np.unique(predictions.subject))
    found, counts = np.unique(names, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _hidden(
    part: Predictions, groups: Groups, attribute: str, counts: dict[str, int], k: int
) -> set[str]:
    """Return the groups that may not be told of, and those that hide how many they are."""
    names = groups.of(attribute, part.subject)
    hidden = {name for name in counts if not is_enough(part, names == name, k)}
    others = sorted(counts.keys() - hidden, key=lambda name: (counts[name], name))
    while hidden and others and sum(counts[name] for name in hidden) < k:
        hidden.add(others.pop(0))
    return hidden


def _withheld_row(attribute: str, group: str) -> SubgroupRow:
    return SubgroupRow(attribute, group, "", "", None, None, None, None, None, withheld=True)
