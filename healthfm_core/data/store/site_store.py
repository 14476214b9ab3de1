"""The site store: one folder of Parquet files that never leaves the site."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import coded, ids, sort_events, times_us
from healthfm_core.data.store.integrity import check_schemas, check_store, read_splits
from healthfm_core.data.store.schemas import (
    EVENTS,
    LABELS,
    SPLIT_NAMES,
    WEARABLE,
    conform,
)
from healthfm_core.data.store.set_aside_share import SetAside
from healthfm_core.data.store.store_files import (
    CODES_FILE,
    LABELS_FOLDER,
    OWN_KEY,
    SOURCE_CODES_FILE,
    WEARABLE_FOLDER,
    files_version,
    in_order,
    may_hold,
    read_batches,
    read_marker,
    read_parquet,
    samples_a_row,
)
from healthfm_core.data.store.store_layers import StoreLayer, event_files
from healthfm_core.data.store.wearables import sort_wearable
from healthfm_core.errors import StoreError
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.registry import (
    VITAL_CODES,
    modality_names,
    modality_of,
    specs,
)

_ROWS_AT_ONCE: Final = 1 << 20
_SAMPLES_AT_ONCE: Final = 1 << 23


class SiteStore:
    """A read-only view of one site's store; made by `SiteStore.open`.

    Attributes:
        path: The store's folder.
        name: The site's name (``dataset_name`` in dataset.json).
        files_version: What tells the store from what it was before: its files' names, sizes and
            times when it was opened.
    """

    path: Path
    name: str
    files_version: str

    def __init__(
        self,
        path: Path,
        name: str,
        files_version: str,
        permitted: frozenset[str],
        people: pa.Array | None = None,
    ) -> None:
        self.path = path
        self.name = name
        self.files_version = files_version
        self._permitted = permitted
        self._people = people
        self._events: pa.Table | None = None
        self._wearables: Mapping[str, pa.Table] | None = None
        self._parents: dict[str, list[str]] | None = None

    @classmethod
    def open(cls, path: Path, *, modalities: Collection[str] | None = None) -> Self:
        """Open a finished store after a check of its files' schemas.

        Args:
            path: The folder.
            modalities: What the view may show; what is not named is as if it were not there. None
                is everything.

        Raises:
            StoreError: HF-201, HF-202, HF-206 to HF-209.
        """
        path = Path(path)
        version = files_version(path)
        marker = read_marker(path)
        check_schemas(path)
        permitted = frozenset(modality_names() if modalities is None else modalities)
        return cls(path, str(marker.get("dataset_name") or path.name), version, permitted)

    @property
    def has_changed(self) -> bool:
        """Whether the store is not any more what it was when it was opened."""
        return files_version(self.path) != self.files_version

    @property
    def version(self) -> str:
        """What tells this view from every other: the store's files, what is shown, and of whom."""
        own = "" if self._people is None else hashlib.sha256(self.subjects().tobytes()).hexdigest()
        said = json.dumps([self.files_version, sorted(self._permitted), own])
        return hashlib.sha256(said.encode()).hexdigest()

    def narrowed(
        self,
        *,
        modalities: Collection[str] | None = None,
        subjects: Collection[int] | Int64 | None = None,
    ) -> Self:
        """Return a view of some modalities or some people of this view; None is all it shows.

        Raises:
            StoreError: HF-210 for a subject that this view does not have.
        """
        shown = self._permitted if modalities is None else self._permitted & set(modalities)
        people = self._people
        if subjects is not None:
            wanted = np.unique(np.array(list(subjects), np.int64))
            self._check_known(wanted)
            people = pa.array(wanted)
        if self._events is None:
            return type(self)(self.path, self.name, self.files_version, shown, people)
        events, wearables = self._events, self._wearables
        if subjects is not None:
            events = _of(events, people)
            wearables = wearables and {name: _of(t, people) for name, t in wearables.items()}
        return self._holding(events, wearables, shown, people)

    def with_records(
        self, events: pa.Table, subjects: Int64, wearables: Mapping[str, pa.Table] | None = None
    ) -> Self:
        """Return a view of some people whose records, of every split, were read before.

        What all of the store's people share is not read again for it.

        Args:
            events: What `events` gave for these people, and nobody else's.
            subjects: [n] who they are, people of this view, ascending.
            wearables: Device → what `wearable` gave for them, of devices that any of them wore;
                None: it is read when it is asked for.
        """
        people = pa.array(subjects, pa.int64())
        return self._holding(events, wearables, self._permitted, people)

    def _holding(
        self,
        events: pa.Table,
        wearables: Mapping[str, pa.Table] | None,
        shown: frozenset[str],
        people: pa.Array | None,
    ) -> Self:
        view = type(self)(self.path, self.name, self.files_version, shown, people)
        view._events, view._wearables = events, wearables
        for fact in ("_codes", "_device_folders"):
            if fact in vars(self):
                vars(view)[fact] = vars(self)[fact]
        view._splits = self._splits if people is None else _of(self._splits, people)
        view._parents = self._parents = self.parents()
        return view

    @property
    def members(self) -> tuple[SiteStore, ...]:
        """The stores that the view is of: itself."""
        return (self,)

    @cached_property
    def modalities(self) -> frozenset[str]:
        """The modalities that have rows and are permitted."""
        sampled = set(modality_names("samples"))
        present = {modality_of(code) for code in self._codes} - sampled
        if self._device_folders:
            present |= sampled
        return frozenset(name for name in present if name) & self._permitted

    @property
    def devices(self) -> tuple[str, ...]:
        """The wearable devices with rows, by name; none where wearables are not permitted."""
        return (
            self._device_folders if self._permitted.intersection(modality_names("samples")) else ()
        )

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks with a label table, by name."""
        return tuple(file.stem for file in in_order(self.path / LABELS_FOLDER))

    def events(self, split: str | None = None) -> pa.Table:
        """Return the events by subject, then time (static first), in the types of `EVENTS`.

        Without ehr in the view only panels (polygenic scores) remain, no age either; without
        wearable the hourly summaries go, without a panel's modality its values.

        Args:
            split: train, tuning or held_out; None is all three.
        """
        if self._events is not None and split is None:
            return self._visible(self._events)
        tables = []
        for file, layer in event_files(self.path, split):
            where = file.relative_to(self.path).as_posix()
            if self._people is None or may_hold(file, where, self._people):
                tables.append(self._read(read_parquet(file, where, coded=("code",)), where, layer))
        if not tables:
            return EVENTS.empty_table()
        table = sort_events(pa.concat_tables(tables, promote_options="permissive"))
        at, plain = table.column_names.index("code"), table["code"].cast(pa.string())
        return table.set_column(at, EVENTS.field("code"), plain).cast(EVENTS)

    def event_parts(
        self, split: str | None = None, *, only_people: bool = False
    ) -> Iterator[pa.Table]:
        """Yield what `events` gives a bounded number of rows at a time, in the order of the files.

        Args:
            split: train, tuning or held_out; None is all three.
            only_people: Whose rows they are, and nothing of them; rows that the view does not show
                are counted too.
        """
        columns = ["subject_id"] if only_people else None
        for file, layer in event_files(self.path, split):
            where = file.relative_to(self.path).as_posix()
            coded = () if only_people else ("code",)
            for rows in read_batches(file, where, _ROWS_AT_ONCE, columns, coded):
                if only_people:
                    yield self._own(layer.current(rows))
                else:
                    yield self._read(rows, where, layer)

    def _read(self, rows: pa.Table, where: str, layer: StoreLayer) -> pa.Table:
        """Return the rows of a file that the view shows, their codes as a dictionary."""
        return self._visible(conform_coded(self._own(layer.current(rows)), where))

    def wearable(self, device: str | None = None, split: str | None = None) -> pa.Table:
        """Return the samples of one device by subject and start, in the types of `WEARABLE`.

        Args:
            device: One of `devices`; None is the first, and no row where there is none.
            split: train, tuning or held_out; None is all three.

        Raises:
            StoreError: HF-208 for a device the view does not have.
        """
        if device is None and not self.devices:
            return WEARABLE.empty_table()
        device = device or self.devices[0]
        if device not in self.devices:
            raise self._absent(f"{WEARABLE_FOLDER}/{device}", "device", self.devices)
        if self._wearables is not None and split is None:
            return self._wearables.get(device, WEARABLE.empty_table())
        tables = [
            self._worn_by(conform(read_parquet(file, file.name), WEARABLE, file.name), split)
            for file in in_order(self.path / WEARABLE_FOLDER / device)
            if self._people is None or may_hold(file, file.name, self._people)
        ]
        table = pa.concat_tables(tables) if tables else WEARABLE.empty_table()
        return table if _by_subject(table) else sort_wearable(table)

    def wearable_parts(self, device: str, split: str | None = None) -> Iterator[pa.Table]:
        """Yield what `wearable` gives some rows at a time, in the order of the files."""
        for file in in_order(self.path / WEARABLE_FOLDER / device):
            rows = max(1, int(_SAMPLES_AT_ONCE // max(1.0, samples_a_row(file, file.name))))
            for part in read_batches(file, file.name, rows):
                yield self._worn_by(conform(part, WEARABLE, file.name), split)

    def _worn_by(self, rows: pa.Table, split: str | None) -> pa.Table:
        """Return the rows of the view's people of a split."""
        if split is None and self._people is None:
            return rows
        return _of(rows, pa.array(self.subjects(split)))

    def labels(self, task: str) -> pa.Table:
        """Return a task's labels by subject and time; columns as in MEDS, and any further ones.

        Raises:
            StoreError: HF-208 for a task the store does not have.
        """
        if task not in self.tasks:
            raise self._absent(f"{LABELS_FOLDER}/{task}", "task", self.tasks)
        where = f"{LABELS_FOLDER}/{task}.parquet"
        table = conform(read_parquet(self.path / where, where), LABELS, where, extra=True)
        table = self._own(table)
        return table.sort_by([("subject_id", "ascending"), ("prediction_time", "ascending")])

    def subjects(self, split: str | None = None) -> Int64:
        """Return the ids of the subjects, ascending.

        Args:
            split: train, tuning or held_out; None is all three.
        """
        table = self._splits
        if split is not None:
            table = table.filter(pc.equal(table["split"], split))
        return ids(table)

    def parents(self) -> dict[str, list[str]]:
        """Return each code's parents, from ``metadata/codes.parquet`` if any."""
        path = self.path / CODES_FILE
        if self._parents is not None:
            return self._parents
        if not path.is_file() or "parent_codes" not in pq.read_schema(path).names:
            return {}
        table = pq.read_table(path, columns=["code", "parent_codes"])
        codes, parents = table["code"].to_pylist(), table["parent_codes"].to_pylist()
        return {code: above for code, above in zip(codes, parents, strict=True) if above}

    def first_times(self, code: str) -> tuple[Int64, Int64]:
        """Return who has a code with a time, ascending, and each one's first time in µs.

        Whatever the view may show: two stores must agree on a birth that a study does not read.
        """
        columns, times = ["subject_id", "time", "code"], [np.zeros((2, 0), np.int64)]
        for file, layer in event_files(self.path):
            where = file.relative_to(self.path).as_posix()
            rows = self._own(layer.current(read_parquet(file, where, columns, ("code",))))
            rows = rows.filter(pc.equal(rows["code"].cast(pa.string()), code))
            rows = rows.filter(pc.is_valid(rows["time"]))
            times.append(np.stack([ids(rows), times_us(rows)]))
        subject, time = np.concatenate(times, axis=1)
        order = np.lexsort((time, subject))
        subject, first = np.unique(subject[order], return_index=True)
        return subject, time[order][first]

    def check(self) -> None:
        """Check every row.

        Raises:
            StoreError: HF-201 to HF-210.
        """
        read_marker(self.path)
        check_store(self.path)

    def summary(self) -> dict[str, Any]:
        """Return counts: subjects (in all and by split), rows by modality, codes, labels, rejected.

        They are the site's own and exact; whoever shows them withholds those below its threshold.
        """
        code, names = coded(self.events()["code"])
        rows = np.bincount(code, minlength=len(names))
        of = [modality_of(name) for name in names]
        events = {
            spec.events_counted_as: int(sum(rows[[m == spec.name for m in of]])) for spec in specs()
        }
        return {
            "name": self.name,
            "modalities": sorted(self.modalities),
            "subjects": len(self.subjects()),
            "subjects_by_split": {name: len(self.subjects(name)) for name in SPLIT_NAMES},
            "events": int(rows.sum()),
            **events,
            "codes": len(names),
            "wearable_rows": {name: self.wearable(name).num_rows for name in self.devices},
            "labels": {task: self.labels(task).num_rows for task in self.tasks},
            "rejected": self.rejected,
            "not_read": self.not_read,
        }

    @cached_property
    def rejected(self) -> dict[str, int]:
        """Reason → rows that ingestion set aside."""
        return dict(read_marker(self.path).get(OWN_KEY, {}).get("rejected", {}))

    @property
    def mapped(self) -> tuple[int, int]:
        """How many rows a mapping put under other codes, and how many codes of the source's."""
        file = self.path / SOURCE_CODES_FILE
        if not file.is_file():
            return 0, 0
        table = read_parquet(file, SOURCE_CODES_FILE)
        return int(pc.sum(table["rows"]).as_py()), len(table["source_code"].unique())

    @cached_property
    def not_read(self) -> dict[str, int]:
        """Kind of record → how many the source held that no reader reads."""
        return dict(read_marker(self.path).get(OWN_KEY, {}).get("not_read", {}))

    @property
    def set_aside(self) -> SetAside:
        """What became of the rows of the store's source."""
        rows = sum(layer.rows_in(file) for file, layer in event_files(self.path))
        return SetAside.told(rows, self.rejected)

    @cached_property
    def _device_folders(self) -> tuple[str, ...]:
        devices = {file.parent.name for file in in_order(self.path / WEARABLE_FOLDER)}
        return tuple(sorted(devices))

    @cached_property
    def _codes(self) -> frozenset[str]:
        found: set[str] = set()
        for file, layer in event_files(self.path):
            columns = ["subject_id", "code"] if len(layer.replaced) else ["code"]
            rows = layer.current(read_parquet(file, file.name, columns, ("code",)))
            found.update(rows["code"].unique().to_pylist())
        return frozenset(found)

    @cached_property
    def _splits(self) -> pa.Table:
        return self._own(read_splits(self.path))

    def _own(self, rows: pa.Table) -> pa.Table:
        """Return the rows of this view's people."""
        return rows if self._people is None else _of(rows, self._people)

    def _check_known(self, wanted: Int64) -> None:
        missing = int((~np.isin(wanted, self.subjects())).sum())
        if missing:
            raise StoreError(
                210,
                where=self.name,
                seen=f"{missing} of {len(wanted)} subjects asked for "
                f"{'is' if missing == 1 else 'are'} not there",
                wanted="ids of the store's own subjects are wanted",
                do="Take them from metadata/subject_splits.parquet",
            )

    def _visible(self, rows: pa.Table) -> pa.Table:
        if self._permitted.issuperset(modality_names()):
            return rows
        clinical = EHR in self._permitted
        shown = self._permitted if clinical else self._permitted & set(modality_names("panel"))
        index, names = coded(rows["code"])
        vital = VITAL_CODES if clinical else ()
        keep = [(modality_of(name) in shown) or name in vital for name in names]
        mask = np.array(keep, np.bool_)[index] if names else np.zeros(0, np.bool_)
        return rows.filter(pa.array(mask))

    def _absent(self, where: str, what: str, known: tuple[str, ...]) -> StoreError:
        return StoreError(
            208,
            where=f"{self.name}/{where}",
            seen=f"the store has no such {what}",
            wanted=f"one of: {', '.join(known) or 'none is there'}",
            do=f"Name another {what}, or ingest a source that has it.",
        )


def conform_coded(rows: pa.Table, where: str) -> pa.Table:
    """Return events in MEDS's types, but with the codes left as a dictionary (faster to filter)."""
    codes = rows["code"]
    table = conform(rows, EVENTS, where)
    if not pa.types.is_dictionary(codes.type):
        return table
    return table.set_column(table.column_names.index("code"), "code", codes)


def _of(rows: pa.Table, people: pa.Array) -> pa.Table:
    return rows.filter(pc.is_in(rows["subject_id"], people))


def _by_subject(table: pa.Table) -> bool:
    subject = ids(table)
    return bool(np.all(subject[1:] >= subject[:-1]))
