"""`Sequences` in files, a column each: written some people at a time, read as views.

Beside the columns lies what batching would work out of them again and again: the `RecordIndex`, and
what was found out of each subject and over all of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from healthfm_core.data.batch.sequences import INDICES, RecordIndex, Sequences
from healthfm_core.npy_files import SUFFIX, ArrayViews, ArrayWriter

_FACTS: Final = "facts.json"
_INDEX: Final = "index."
_PER_SUBJECT: Final = "per-subject."
_NAMES: Final = "panel_names"
_NAMES_OF: Final = tuple(f.name for f in fields(Sequences) if f.name != _NAMES)
_INDEX_OF: Final = tuple(f.name for f in fields(RecordIndex))
SYNCED_FROM: Final = 64 * 1024**2
"""Bytes from which the system is made to put the files on the disk; what is smaller is checked when
it is read, which takes less time than waiting for a disk as often as there are columns."""


class SequencesWriter:
    """Writes people's sequences into a folder of their own; `close` ends it.

    Args:
        folder: Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._columns: dict[str, ArrayWriter] = {}
        self._names: tuple[str, ...] = ()
        self._per_subject: list[str] = []
        self._totals: Counter[str] = Counter()
        self._counts: dict[str, npt.NDArray[np.int64]] = {}

    def append(self, part: Sequences) -> None:
        """Write further people, behind those before, and what was worked out of them."""
        before = {name: len(column) for name, column in self._columns.items()}
        for name in _NAMES_OF:
            self._write(name, getattr(part, name), before)
        for name in _INDEX_OF:
            self._write(_INDEX + name, getattr(part.record, name), before)
        self._names, self._per_subject = part.panel_names, sorted(part.per_subject)
        for number, name in enumerate(self._per_subject):
            self._write(f"{_PER_SUBJECT}{number}", part.per_subject[name], before)
        for name, counts in part.totals.items():
            self._counts[name] = self._counts.get(name, np.zeros_like(counts)) + counts

    def close(self) -> None:
        """End the files and say what is in them."""
        size = sum(column.size for column in self._columns.values())
        is_large = size >= SYNCED_FROM
        for column in self._columns.values():
            column.close(sync=is_large)
        facts = {
            "size": size,
            "checks": {} if is_large else {n: c.check for n, c in self._columns.items()},
            "columns": sorted(self._columns),
            "panel_names": self._names,
            "per_subject": self._per_subject,
            "totals": {name: counts.tolist() for name, counts in self._counts.items()},
        }
        (self._folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")

    def abandon(self) -> None:
        """Write no more; what is there is nothing."""
        for column in self._columns.values():
            column.abandon()

    def _write(self, name: str, column: npt.NDArray[Any], before: Mapping[str, int]) -> None:
        other = INDICES.get(name.removeprefix(_INDEX))
        if other is not None:
            shift = before.get(_INDEX + other if other in _INDEX_OF else other, 0)
            column = np.where(column < 0, column, column + shift)
        if name not in self._columns:
            self._columns[name] = ArrayWriter(self._folder / f"{name}{SUFFIX}")
        elif name.endswith("offsets"):
            column = column[1:]
        self._columns[name].append(column)


def sequences_in(folder: Path) -> Sequences:
    """Return the sequences that a folder's files hold, as views into them.

    Raises:
        OSError: A file is not there or cannot be read.
        ValueError: One is not whole.
    """
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    arrays = ArrayViews.of({name: folder / f"{name}{SUFFIX}" for name in facts["columns"]})
    for name, check in facts["checks"].items():
        if arrays.check(name) != check:
            raise ValueError(f"{name} is not what was written")
    columns = {name: arrays[name] for name in _NAMES_OF}
    sequences = Sequences(**columns, panel_names=tuple(facts[_NAMES]))
    index = RecordIndex(**{name: arrays[_INDEX + name] for name in _INDEX_OF})
    found = enumerate(facts["per_subject"])
    per_subject = {name: arrays[f"{_PER_SUBJECT}{number}"] for number, name in found}
    totals = {name: np.array(of, np.int64) for name, of in facts["totals"].items()}
    vars(sequences).update(record=index, per_subject=per_subject, totals=totals, files=arrays)
    return sequences
