"""Single things hidden of rows: an event, an hour of wearing, a score, the birth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healthfm_core.arrays import Bool, Int64


@dataclass(frozen=True)
class HiddenItems:
    """What is hidden of R rows, as if the subject never had it.

    It is hidden before a row is cut to its length, as a dropped modality is: in a record longer
    than a row something older takes its place.

    Attributes:
        row: [h] row of each hidden item, ascending.
        item: [h] the item, an index into `Sequences`; one that is not of the row hides nothing.
        score: [R, P] polygenic scores.
        birth: [R] the birth, and the age with it.
        visits: [R, V] visits that no longer hold a target, all before the row's only query.
    """

    row: Int64
    item: Int64
    score: Bool
    birth: Bool
    visits: Int64

    def __len__(self) -> int:
        return len(self.birth)

    def slice(self, low: int, high: int) -> HiddenItems:
        """Return what is hidden of the rows ``low … high - 1``."""
        first, last = np.searchsorted(self.row, (low, high))
        return HiddenItems(
            self.row[first:last] - low,
            self.item[first:last],
            self.score[low:high],
            self.birth[low:high],
            self.visits[low:high],
        )

    def shown(self, low: Int64, size: Int64) -> Bool:
        """Return which of the items ``low[r] … low[r] + size[r] - 1``, row by row, are left."""
        start = np.cumsum(size) - size
        within = self.item - low[self.row]
        inside = (within >= 0) & (within < size[self.row])
        left = np.ones(int(size.sum()), np.bool_)
        left[(start[self.row] + within)[inside]] = False
        return left
