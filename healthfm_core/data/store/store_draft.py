"""A store in the making: its files, kind by kind, in the order of `StoreDraft`'s methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import coded, ids, with_plain_codes
from healthfm_core.data.store.genetics import mark
from healthfm_core.data.store.integrity import check_store, empty
from healthfm_core.data.store.labels import check_labels
from healthfm_core.data.store.rejected_files import RejectedFiles
from healthfm_core.data.store.schemas import CODES, SOURCE_CODES, SPLIT_NAMES, SPLITS, conform
from healthfm_core.data.store.set_aside_share import SetAside
from healthfm_core.data.store.splits import DEFAULT_KEY, assign, split_table
from healthfm_core.data.store.store_files import (
    CODES_FILE,
    DATA,
    LABELS_FOLDER,
    OWN_KEY,
    REJECTED_FOLDER,
    SOURCE_CODES_FILE,
    SPLITS_FILE,
    WEARABLE_FOLDER,
    write_marker,
    write_parquet,
    write_shards,
)
from healthfm_core.data.store.wearable_shards import SAMPLES_PER_FILE, WearableShards
from healthfm_core.errors import IngestError
from healthfm_core.modalities.genomics import PRS_PREFIX

EVENTS_PER_FILE: Final = 2_000_000
_DIFFERENCES: Final = ("subject_id", "time")
"""Columns that are written as differences; sorted as they are, that is small and quick."""

_version: Final = cache(version)
"""A package's version, which takes longer to look up than a small store to write."""

Splits: TypeAlias = Mapping[int, str] | pa.Table | None
"""Subject → train | tuning | held_out, or MEDS's table; a subject that is not named, or everyone
where it is None, goes by keyed hash of the id 70/15/15."""


class StoreDraft:
    """Writes a store's files into a folder that nobody takes for a store yet.

    Call, in this order: `write_events`, or `write_group` for each group; `write_rejected`;
    `note_not_read`; `write_wearable`, or `add_wearable` for each part and `end_wearables`, with
    what was set aside of it; `write_splits`, once all subjects are known; `write_labels`;
    `write_codes`; `write_source_codes`; `check_and_mark`, which makes it a store. `close` ends the
    files that are open.

    Args:
        folder: Made if it is not there.
        dataset_name: The site's name.
        splits: Who is used for what.
        layer: What ``data/`` is in, for an update; None is `folder`.
    """

    def __init__(
        self,
        folder: Path,
        dataset_name: str,
        splits: Splits = None,
        layer: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._layer = layer or folder
        self.name = dataset_name
        self._given_splits = splits
        self._subjects: list[Int64] = [np.zeros(0, np.int64)]
        self._everyone = np.zeros(0, np.int64)
        self._codes: set[str] = set()
        self._groups = 0
        self._devices: list[str] = []
        self._shards: dict[str, WearableShards] = {}
        self._rejected = RejectedFiles(folder / REJECTED_FOLDER)
        self._not_read: Counter[str] = Counter()
        self.set_aside = SetAside()

    @property
    def rejected(self) -> Mapping[str, int]:
        """Reason → rows set aside so far."""
        return self._rejected.counts

    @property
    def subjects(self) -> Int64:
        """Who has an event or a sample among those written so far, ascending."""
        return np.unique(np.concatenate(self._subjects))

    @property
    def codes(self) -> list[str]:
        """The codes of the events written so far, by name."""
        return sorted(self._codes)

    def write_events(self, events: pa.Table) -> None:
        """Write all events, which are sorted by subject and time, to the files of their splits."""
        if not events["text_value"].drop_null().length():
            events = events.drop_columns(["text_value"])
        split, place = self._splits_of(ids(events))
        self.set_aside.kept += events.num_rows
        self._codes.update(events["code"].unique().to_pylist())
        for name in SPLIT_NAMES:
            rows = (split == name)[place]
            write_shards(
                events.filter(pa.array(rows, pa.bool_())),
                self.folder / DATA / name,
                EVENTS_PER_FILE,
            )

    def write_group(self, events: pa.Table, *, texts: bool) -> None:
        """Write every event of some subjects, sorted, to a file in each of their splits.

        Args:
            events: Codes are a dictionary of those that occur.
            texts: Whether any event of the store has a text: all files have the column, or none.
        """
        split, place = self._splits_of(ids(events))
        self.set_aside.kept += events.num_rows
        self._codes.update(coded(events["code"])[1])
        if texts:
            events = _with_texts(events)
        for name in np.unique(split):
            rows = (split == name)[place]
            table = events if rows.all() else events.filter(pa.array(rows))
            _write_group(table, self._layer / DATA / name / f"{self._groups}.parquet")
        self._groups += 1

    def write_rejected(self, reason: str, rows: pa.Table) -> None:
        """Keep rows that were set aside, under the reason why."""
        self._rejected.append(reason, rows)
        self.set_aside.add(reason, rows)

    def note_not_read(self, kinds: Mapping[str, int]) -> None:
        """Note what more the source holds that was not read: kind → how many."""
        self._not_read.update(kinds)

    def close(self) -> None:
        """End the files of rejected rows."""
        self._rejected.close()

    def write_wearable(self, device: str, rows: pa.Table) -> None:
        """Write the rows of a device, which are sorted; none where there are none."""
        if rows.num_rows:
            samples = max(1, len(pc.list_flatten(rows["mask"])) // rows.num_rows)
            rows_per_file = max(1, SAMPLES_PER_FILE // samples)
            write_shards(rows, self.folder / WEARABLE_FOLDER / device, rows_per_file)
            self._devices.append(device)
            self._subjects.append(np.unique(ids(rows)))

    def add_wearable(self, device: str, rows: pa.Table) -> None:
        """Write rows of some people, of whom this device has no others."""
        if device not in self._shards:
            self._shards[device] = WearableShards(self.folder / WEARABLE_FOLDER / device)
        self._subjects.append(np.unique(ids(rows)))
        self._shards[device].add(rows)

    def end_wearables(self) -> None:
        """End the files that `add_wearable` wrote."""
        for device, shards in self._shards.items():
            shards.end()
            if (self.folder / WEARABLE_FOLDER / device).is_dir():
                self._devices.append(device)

    def note_people(self, subjects: Int64) -> None:
        """Count people as the store's who have no row among those written, but in other files."""
        self._subjects.append(subjects)

    def write_splits(self) -> None:
        """Write which subject is used for what.

        Raises:
            StoreError: HF-206 where the store has no subject.
            IngestError: HF-306 where a stream gave no usable row.
        """
        self._everyone = self.subjects
        if not len(self._everyone):
            raise _nothing_usable(self.name) if self._groups else empty(self.name)
        write_parquet(self.split_of(self._everyone), self.folder / SPLITS_FILE)

    def write_labels(self, task: str, labels: pa.Table, *, of_anyone: bool = False) -> None:
        """Write a task's labels.

        Args:
            task: The file's name.
            labels: MEDS label columns; further columns are kept.
            of_anyone: Leave out labels of people whom the store does not have.
        """
        where = f"{LABELS_FOLDER}/{task}.parquet"
        if of_anyone:
            labels = labels.filter(pc.is_in(labels["subject_id"], pa.array(self._everyone)))
        write_parquet(check_labels(labels, self._everyone, where), self.folder / where)

    def write_codes(self, described: pa.Table, scores: str = "") -> None:
        """Write what is known of the codes that occur and of those above them, see `code_table`."""
        write_parquet(self.code_table(described, scores), self.folder / CODES_FILE)

    def code_table(self, described: pa.Table, scores: str = "") -> pa.Table:
        """Return what is known of the codes that occur and of those above them, by name.

        Args:
            described: MEDS's table of codes.
            scores: How polygenic scores were normalised, see `genetics`.
        """
        names = self.codes
        wanted = pa.array(sorted(_with_ancestors(names, described)), pa.string())
        known = described.filter(pc.is_in(described["code"], wanted))
        rest = sorted(set(names) - set(known["code"].to_pylist()))
        texts = [mark(scores) if scores and n.startswith(PRS_PREFIX) else None for n in rest]
        more = pa.table(
            {
                "code": pa.array(rest, pa.string()),
                "description": pa.array(texts, pa.string()),
                "parent_codes": pa.nulls(len(rest), pa.list_(pa.string())),
            },
            schema=CODES,
        )
        return pa.concat_tables([known.cast(CODES), more]).sort_by("code")

    def write_source_codes(self, mapped: Mapping[tuple[str, str], int]) -> None:
        """Write which codes a mapping replaced, beside the others; nothing where it replaced none.

        Args:
            mapped: (code in the store, code of the source) → rows.
        """
        if not mapped:
            return
        pairs = sorted(mapped)
        columns = {
            "code": pa.array([code for code, _ in pairs], pa.string()),
            "source_code": pa.array([source for _, source in pairs], pa.string()),
            "rows": pa.array([mapped[pair] for pair in pairs], pa.int64()),
        }
        write_parquet(pa.table(columns, schema=SOURCE_CODES), self.folder / SOURCE_CODES_FILE)

    def check_and_mark(self, scores: str = "", sources: Sequence[Mapping[str, Any]] = ()) -> None:
        """Check every file, then write dataset.json, without which a folder is no store.

        The rows of a stream are not checked again: each group was when it was cleaned.

        Args:
            scores: How polygenic scores were normalised, see `genetics`.
            sources: What is noted of where the rows are from.

        Raises:
            StoreError: HF-201 to HF-211.
        """
        check_store(self.folder, rows=not self._groups)
        devices = [f"{WEARABLE_FOLDER}/{device}" for device in sorted(self._devices)]
        marker = {
            "dataset_name": self.name,
            "etl_name": "healthfm",
            "etl_version": _version("healthfm"),
            "meds_version": _version("meds"),
            "additional_value_modality_columns": devices,
            OWN_KEY: {
                "rejected": self._rejected.counts,
                "not_read": {kind: int(n) for kind, n in sorted(self._not_read.items()) if n},
                "scores": scores or None,
                "sources": list(sources),
            },
        }
        write_marker(self.folder, marker)

    def _splits_of(self, subject: Int64) -> tuple[npt.NDArray[np.object_], Int64]:
        """Note the subjects of rows in order of subjects.

        Returns:
            ([S] the split of each, [N] which of them each row is of).
        """
        subjects = subject
        if len(subject):
            subjects = subject[np.append(True, subject[1:] != subject[:-1])]
        self._subjects.append(subjects)
        split = np.asarray(self.split_of(subjects)["split"].to_pylist(), dtype=object)
        return split, np.searchsorted(subjects, subject)

    def split_of(self, subjects: Int64) -> pa.Table:
        """Return MEDS's subject_splits of some subjects, ascending."""
        given = self._given_splits
        if given is None:
            return split_table(subjects, assign(subjects, key=DEFAULT_KEY))
        if isinstance(given, Mapping):
            given = pa.table(
                {
                    "subject_id": pa.array(list(given), pa.int64()),
                    "split": pa.array(list(given.values()), pa.string()),
                }
            )
        given = conform(given, SPLITS, f"{self.name}: {SPLITS_FILE}")
        others = np.setdiff1d(subjects, ids(given))
        rest = split_table(others, assign(others, key=DEFAULT_KEY))
        table = pa.concat_tables([given, rest]).sort_by("subject_id")
        return table.filter(pc.is_in(table["subject_id"], pa.array(subjects)))


def _with_texts(events: pa.Table) -> pa.Table:
    """Return events with a column of texts, and codes as texts beside it."""
    if "text_value" not in events.column_names:
        events = events.append_column("text_value", pa.nulls(len(events), pa.large_string()))
    return with_plain_codes(events)


def _write_group(events: pa.Table, file: Path) -> None:
    """Write events so that equal ones give equal bytes, codes from their dictionary."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        events,
        file,
        compression="zstd",
        row_group_size=1 << 20,
        store_schema=not pa.types.is_dictionary(events["code"].type),
        use_dictionary=[name for name in events.column_names if name not in _DIFFERENCES],
        column_encoding=dict.fromkeys(_DIFFERENCES, "DELTA_BINARY_PACKED"),
    )


def _with_ancestors(names: list[str], described: pa.Table) -> set[str]:
    """Return `names` and every code above them, which a tokeniser falls back on."""
    codes, parents = described["code"].to_pylist(), described["parent_codes"].to_pylist()
    above = {code: tuple(of or ()) for code, of in zip(codes, parents, strict=True)}
    ancestors, new = set(names), set(names)
    while new:
        new = {parent for code in new for parent in above.get(code, ())} - ancestors
        ancestors |= new
    return ancestors


def _nothing_usable(name: str) -> IngestError:
    return IngestError(306, where=name, seen="there is no usable row")
