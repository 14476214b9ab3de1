"""How much of what was read in was set aside: a store that lost most of its source is no store.

Rows that cannot be true are set aside one by one, each for a good reason. Where they are many the
reason is not in the rows but in how they were read: dates that the source shifts into the future, a
column in another unit, a table without its people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.data.store.events import coded, times_us

MOST: Final = 0.05
"""Share of the rows that may be set aside, unless somebody says otherwise."""
_LAST_DAY: Final = 2_932_896
"""31 December 9999, in days since 1970."""
FEWEST: Final = 20
"""Rows set aside from which on their share is looked at."""
AFTER_TODAY: Final = "after_today"
OF_EVENTS: Final = frozenset(
    {
        *("no_code", AFTER_TODAY, "before_1850", "before_birth", "not_finite", "impossible_value"),
        *("no_date", "unknown_person", "malformed_line", "ends_before_it_starts"),
    }
)
"""Reasons that are counted; a double loses nothing, and a device's readings are counted apart."""


@dataclass
class SetAside:
    """What became of the rows of a store's source.

    Attributes:
        kept: Events in the store.
        reasons: Reason → rows set aside, those of `OF_EVENTS` alone.
        by_domain: Domain of codes → events of it that were set aside.
        latest: Day of the latest event after today, '' where there is none.
    """

    kept: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    by_domain: dict[str, int] = field(default_factory=dict)
    latest: str = ""

    @classmethod
    def told(cls, kept: int, rejected: Mapping[str, int]) -> SetAside:
        """Return what a store's own marker says."""
        return cls(kept, {r: n for r, n in rejected.items() if r in OF_EVENTS})

    def add(self, reason: str, rows: pa.Table) -> None:
        """Count rows set aside."""
        if reason not in OF_EVENTS:
            return
        self.reasons[reason] = self.reasons.get(reason, 0) + rows.num_rows
        if "code" in rows.column_names:
            index, names = coded(rows["code"])
            counts = np.bincount(index[index >= 0], minlength=len(names))
            for name, count in zip(names, counts.tolist(), strict=True):
                domain = name.partition("//")[0]
                self.by_domain[domain] = self.by_domain.get(domain, 0) + count
        if reason == AFTER_TODAY and rows.num_rows:
            self.latest = max(self.latest, _day(rows))

    @property
    def rows(self) -> int:
        """Rows set aside."""
        return sum(self.reasons.values())

    @property
    def share(self) -> float:
        """Of all rows, those set aside; 0 to 1."""
        return self.rows / max(1, self.rows + self.kept)

    def is_much(self, most: float = MOST) -> bool:
        """Whether more than `most` of the rows are set aside."""
        return self.rows >= FEWEST and self.share > most

    def lost_domains(self, kept: set[str]) -> list[str]:
        """Return the domains of which many events were set aside and none was kept.

        Args:
            kept: Domains of the store's codes.
        """
        return [d for d, n in sorted(self.by_domain.items()) if n >= FEWEST and d not in kept]

    def sentence(self) -> str:
        """Return how much was set aside, and why."""
        counts = sorted(self.reasons.items())
        why = ", ".join(f"{_shown(n)} {reason}" for reason, n in counts if n)
        until = f" (the latest of {self.latest})" if self.latest else ""
        of = f"{self.rows:,} of {self.rows + self.kept:,} rows"
        return f"{of} ({100 * self.share:.1f} %) are set aside: {why}{until}"


def _day(rows: pa.Table) -> str:
    """Return the day of the latest event, that of the last year that a date can have at most."""
    days = int(times_us(rows).max()) // 86_400_000_000
    return str(np.datetime64(min(days, _LAST_DAY), "D"))


def _shown(rows: int) -> str:
    return f"{rows:,}" if rows >= FEWEST else f"<{FEWEST}"
