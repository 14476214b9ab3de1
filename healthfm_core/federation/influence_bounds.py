"""How much one site may move a model in a round: its share of the weight, its update's length.

What a site says of its own size caps nothing, so the others' sizes do; and what is far longer than
the sites' updates have been is shortened, not believed. Neither changes a bit of a round in which
every site keeps to them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from healthfm_core.arrays import ArrayDict, Arrays
from healthfm_core.federation.update_checks import UpdateSchema, update_norm

FEWEST_SITES: Final = 3
"""Of one or two sites none can be held to a share without taking the other for the truth."""
ROUNDS_LOOKED_AT: Final = 10
"""Rounds whose medians the running median is of."""
MEDIAN_NORM: Final = "median_norm"
"""Key of a group's row in the history: the median over the round's sites of their update's norm."""


def weight_cap(sizes: Collection[float], most_share: float) -> float:
    """Return the weight that a site may have at most, so that none has more than its share.

    Larger sites count as much as the cap. With k of them over it, k·c + Σ others is the whole, and
    c is `most_share` of that; the smallest such k is taken.

    Args:
        sizes: Training subjects of the sites asked, as each said.
        most_share: Most of the round's weight that one site may have.

    Returns:
        The cap; infinite where there are fewer than three sites, or nobody is over it.
    """
    if len(sizes) < FEWEST_SITES:
        return math.inf
    ordered = sorted(sizes, reverse=True)
    if ordered[0] <= most_share * sum(ordered):
        return math.inf
    for over in range(1, len(ordered)):
        if over * most_share >= 1:
            break
        cap = most_share * sum(ordered[over:]) / (1 - over * most_share)
        if ordered[over] <= cap:
            return cap
    return float(ordered[-1])


def weight_beside(others: float, most_share: float) -> float:
    """Return the weight that a site may have at most beside others, known by their sum alone.

    It is `weight_cap`'s where one site alone is over it.

    Args:
        others: Weight of all other sites.
        most_share: Most of the round's weight that one site may have.
    """
    return most_share * others / (1 - most_share) if most_share < 1 else math.inf


def running_medians(
    history: Sequence[Mapping[str, Any]], rate: Callable[[int], float], round_: int
) -> dict[str, float]:
    """Return group → median of the last rounds' medians of the sites' norms, from a run's history.

    It is read from what is on disk, so that no restart begins it anew. What sites learn faster in
    this round than in an earlier one, as in warm-up, they may move further than they did then.

    Args:
        history: A row for each earlier round.
        rate: Round → its learning rate.
        round_: This one.
    """
    found: dict[str, list[float]] = {}
    for row in reversed(history):
        for group, said in row.get("groups", {}).items():
            norms = found.setdefault(group, [])
            if MEDIAN_NORM in said and len(norms) < ROUNDS_LOOKED_AT:
                faster = max(1.0, rate(round_) / rate(row["round"]))
                norms.append(faster * float(said[MEDIAN_NORM]))
    return {group: statistics.median(norms) for group, norms in found.items() if norms}


def shortened(
    update: Arrays, group: str, schema: UpdateSchema, bound: float
) -> tuple[ArrayDict, float]:
    """Return `group`'s arrays no longer than `bound`, and the norm they had.

    Args:
        update: A site's, that `check_update` has passed.
        group: Of parameters; state of an algorithm beside them is scaled by the same factor.
        schema: Names the group's arrays.
        bound: L2 norm of the change of parameters, at most.
    """
    names = [name for name in schema.groups[group] if name in update]
    norm = update_norm(update, [name for name in names if "/" not in name])
    if norm <= bound:
        return {name: update[name] for name in names}, norm
    factor = np.float32(bound / norm)
    return {name: np.asarray(update[name] * factor) for name in names}, norm
