"""A store's events as arrays, read once for every fact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Int64
from healthfm_core.data.store.events import coded, ids, times_us
from healthfm_core.data.store.schemas import CODES, conform
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE, read_parquet


@dataclass(frozen=True)
class EventArrays:
    """Events, and who they are of.

    Attributes:
        everyone: Ascending, all subjects of the store.
        subject: [N] place in `everyone`.
        time_us: [N] `STATIC_TIME` where there is none.
        code: [N] index into `names`.
        has_number: [N].
        names: The codes.
        described: Code → its description.
        parents: Codes that have one above them.
    """

    everyone: Int64
    subject: Int64
    time_us: Int64
    code: Int64
    has_number: Bool
    names: tuple[str, ...]
    described: dict[str, str]
    parents: frozenset[str]

    @classmethod
    def of(cls, store: SiteStore) -> EventArrays:
        """Read a store."""
        events = store.events()
        code, names = coded(events["code"])
        everyone = store.subjects()
        file = store.path / CODES_FILE
        codes = CODES.empty_table()
        if file.is_file():
            codes = conform(read_parquet(file, CODES_FILE), CODES, CODES_FILE)
        listed = codes["code"].to_pylist()
        texts, above = codes["description"].to_pylist(), codes["parent_codes"].to_pylist()
        return cls(
            everyone=everyone,
            subject=np.searchsorted(everyone, ids(events)).astype(np.int64),
            time_us=times_us(events),
            code=code,
            has_number=np.asarray(pa.compute.is_valid(events["numeric_value"]).to_numpy()),
            names=tuple(names),
            described={c: text for c, text in zip(listed, texts, strict=True) if text},
            parents=frozenset(c for c, of in zip(listed, above, strict=True) if of),
        )

    @property
    def people(self) -> int:
        """How many there are."""
        return len(self.everyone)

    @cached_property
    def events_per_code(self) -> Int64:
        """[C] rows of each code."""
        return np.bincount(self.code, minlength=len(self.names)).astype(np.int64)

    @cached_property
    def carried(self) -> Int64:
        """[C] people with each code."""
        return self.people_per(self.code, len(self.names))

    def people_per(self, group: Int64, groups: int) -> Int64:
        """Return [G] the people with a row of each group.

        Args:
            group: [N] of each row; -1 is of none.
            groups: How many there are.
        """
        rows = group >= 0
        size = max(groups, 1)
        pairs = np.unique(self.subject[rows] * size + group[rows])
        return np.bincount(pairs % size, minlength=groups).astype(np.int64)

    def named(self, wanted: list[bool]) -> Bool:
        """Return [N] whether a row's code, by its place in `names`, is wanted."""
        return np.array(wanted, np.bool_)[self.code] if wanted else np.zeros(0, np.bool_)
