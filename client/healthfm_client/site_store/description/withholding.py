"""Which counts may be shown: none of 1 to k - 1, and none that would give such a one away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from healthfm_core.arrays import Float64


def counted(count: int, k: int, *, people: int | None = None, of: int | None = None) -> int | None:
    """Return a count, or None.

    Args:
        count: Of people, or of what they have.
        k: The site's threshold, in people.
        people: How many the count is about, where it is not itself of people.
        of: All people, where the others are known by taking away.
    """
    who = count if people is None else people
    few = 0 < who < k or (of is not None and 0 < of - who < k)
    return None if few else count


def together(counts: Sequence[int], k: int) -> list[int | None]:
    """Return counts whose sum is known: one withheld would follow from the others, so all are."""
    few = any(counted(count, k) is None for count in counts)
    return [None if few else count for count in counts]


def apart(counts: Sequence[int], k: int) -> list[int | None]:
    """Return counts whose sum is known: of what is withheld the sum is k or more, or nothing is."""
    shown: list[int | None] = [counted(count, k) for count in counts]
    for at in sorted(range(len(counts)), key=lambda at: counts[at]):
        hidden = sum(count for count, seen in zip(counts, shown, strict=True) if seen is None)
        if 0 < hidden < k and counts[at] and shown[at] is not None:
            shown[at] = None
    return shown


def quartiles(values: Float64, k: int) -> list[float] | None:
    """Return the quartiles of one value a person, to a tenth; None where a quarter is under k."""
    if len(values) < 4 * k or not len(values):
        return None
    return [round(float(value), 1) for value in np.quantile(values, (0.25, 0.5, 0.75))]
