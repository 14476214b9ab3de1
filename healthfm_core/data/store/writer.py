"""Writing a site store: all of it, checked, or nothing."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.arrays import Int64
from healthfm_core.data.store.event_spool import EventSpool
from healthfm_core.data.store.event_stream import EventStream, Progress, unseen
from healthfm_core.data.store.events import ids, sort_events
from healthfm_core.data.store.genetics import DECLARED_Z, mark, score_events
from healthfm_core.data.store.integrity import check_store, empty, read_splits
from healthfm_core.data.store.labels import check_labels
from healthfm_core.data.store.schemas import CODES, EVENTS, SPLIT_NAMES, SPLITS, WEARABLE, conform
from healthfm_core.data.store.splits import DEFAULT_KEY, assign, split_table
from healthfm_core.data.store.store_files import (
    CODES_FILE,
    DATA,
    LABELS_FOLDER,
    MARKER_FILE,
    OWN_KEY,
    REJECTED_FOLDER,
    SPLITS_FILE,
    WEARABLE_FOLDER,
    write_parquet,
    write_shards,
)
from healthfm_core.data.store.stream_writer import Rejected, Written, gather, write_stream
from healthfm_core.data.store.wearables import sort_wearable
from healthfm_core.errors import IngestError
from healthfm_core.modalities.genomics import PRS_PREFIX

EVENTS_PER_FILE: Final = 2_000_000
SAMPLES_PER_FILE: Final = 50_000_000


class StoreWriter:
    """Collects a site's tables and, at the end of its ``with`` block, writes and checks the store.

    Everything goes to a sibling temporary folder that takes the store's name when every row has
    passed the check; after an exception (an interruption too) nothing of it is left. Events and
    wearable rows may come in any order and in several calls: the writer sorts them.

    Args:
        path: The store's folder.
        dataset_name: The site's name.
        overwrite: Replace a store that is there; without it that is an error.
        work: Folder in which what was read of a stream outlasts an interruption, for the next
            writer to go on from; None is a temporary one.
        progress: Told of a stream's rows as they are read and written.

    Raises:
        IngestError: HF-304 where the folder exists, on entering.
        StoreError: HF-201 to HF-211, on leaving.
    """

    def __init__(
        self,
        path: Path,
        *,
        dataset_name: str,
        overwrite: bool = False,
        work: Path | None = None,
        progress: Progress = unseen,
    ) -> None:
        self._path = Path(path)
        self._work = work
        self._progress = progress
        self._stream: EventStream | None = None
        self._own_labels = False
        self._name = dataset_name
        self._overwrite = overwrite
        self._events: list[pa.Table] = []
        self._wearables: dict[str, list[pa.Table]] = {}
        self._labels: dict[str, pa.Table] = {}
        self._rejected: dict[str, list[pa.Table]] = {}
        self._splits: Mapping[int, str] | pa.Table | None = None
        self._codes = CODES.empty_table()
        self._scores = ""

    def __enter__(self) -> Self:
        refuse_existing(self._path, self._overwrite)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            with Replacing(self._path, overwrite=self._overwrite) as folder:
                self._write(folder)

    def events(self, table: pa.Table) -> None:
        """Add events (MEDS columns; rows in any order; a duplicate is refused at the end)."""
        self._events.append(conform(table, EVENTS, f"{self._name}: events"))

    def stream(self, stream: EventStream) -> None:
        """Set the events as a stream, which is read on leaving; it need not fit in memory.

        Impossible events and doubles are set aside here, while `events` takes no such row.
        """
        self._stream = stream

    def wearable(self, device: str, table: pa.Table) -> None:
        """Add rows of `WEARABLE` under the device's name."""
        rows = conform(table, WEARABLE, f"{self._name}: {WEARABLE_FOLDER}/{device}")
        self._wearables.setdefault(device, []).append(rows)

    def scores(self, table: pa.Table, *, normalisation: str = DECLARED_Z) -> None:
        """Add polygenic scores (subject_id, score, z), of one normalisation (see `genetics`)."""
        self._events.append(score_events(table, f"{self._name}: polygenic scores"))
        self._scores = normalisation

    def labels(self, task: str, table: pa.Table, *, of_anyone: bool = False) -> None:
        """Set the labels of a task (MEDS label columns; further columns are kept).

        Args:
            task: The file's name.
            table: The labels.
            of_anyone: Leave out labels of people whom the store does not have.
        """
        self._labels[task] = table
        self._own_labels = self._own_labels or of_anyone

    def splits(self, mapping: Mapping[int, str] | pa.Table | None) -> None:
        """Set subject → train | tuning | held_out, as a mapping or MEDS's table.

        A subject that is not named, or everyone where this is None or never called, goes by keyed
        hash of the id 70/15/15.
        """
        self._splits = mapping

    def codes(self, table: pa.Table) -> None:
        """Set what is known of codes (code, description, parent_codes); the rest is completed."""
        self._codes = conform(table, CODES, f"{self._name}: {CODES_FILE}")

    def rejected(self, reason: str, table: pa.Table) -> None:
        """Keep rows that were set aside, beside the data, under the reason why."""
        self._rejected.setdefault(reason, []).append(table)

    def _write(self, folder: Path) -> None:
        wearables = {
            device: sort_wearable(pa.concat_tables(tables))
            for device, tables in self._wearables.items()
        }
        wearables = {device: table for device, table in wearables.items() if table.num_rows}
        written = self._write_all_events(folder)
        others = [np.unique(ids(table)) for table in wearables.values()]
        subjects = np.unique(np.concatenate([np.zeros(0, np.int64), *written.subjects, *others]))
        if not len(subjects):
            raise empty(self._name) if self._stream is None else _nothing_usable(self._name)
        splits = self._split_table(subjects)
        write_parquet(splits, folder / SPLITS_FILE)
        for device, table in wearables.items():
            samples = max(1, len(pc.list_flatten(table["mask"])) // table.num_rows)
            rows = max(1, SAMPLES_PER_FILE // samples)
            write_shards(table, folder / WEARABLE_FOLDER / device, rows)
        for task, table in self._labels.items():
            where = f"{LABELS_FOLDER}/{task}.parquet"
            if self._own_labels:
                table = table.filter(pc.is_in(table["subject_id"], pa.array(subjects)))
            write_parquet(check_labels(table, ids(splits), where), folder / where)
        write_parquet(self._code_table(sorted(written.codes)), folder / CODES_FILE)
        check_store(folder, rows=self._stream is None)
        marker = self._marker(tuple(sorted(wearables)), written.rejected)
        text = json.dumps(marker, indent=2, sort_keys=True)
        (folder / MARKER_FILE).write_text(text + "\n", encoding="utf-8")

    def _write_all_events(self, folder: Path) -> Written:
        rejected = {
            name: pa.concat_tables(t, promote_options="permissive")
            for name, t in self._rejected.items()
        }
        if self._stream is not None:
            written = self._write_stream(self._stream, folder)
        else:
            events = sort_events(pa.concat_tables([EVENTS.empty_table(), *self._events]))
            self._write_events(folder, events)
            names = events["code"].unique().to_pylist()
            written = Written([np.unique(ids(events))], set(names))
        with Rejected(folder / REJECTED_FOLDER, written.rejected) as files:
            for reason, rows in rejected.items():
                files.add(reason, rows)
        return written

    def _write_stream(self, stream: EventStream, folder: Path) -> Written:
        place = folder / ".spool" if self._work is None else self._work
        expected = sum(part.rows for part in stream.parts)
        spool = EventSpool(place, self._name, resume=self._work is not None, expected=expected)
        gather(stream, spool, self._progress, keep=self._work is not None)
        for table in self._events:
            spool.add(table)
        written = write_stream(stream, spool, folder, self._split_table, self._progress)
        if stream.codes is not None:
            known = _with_texts(stream.codes(sorted(written.codes)), spool.texts)
            self.codes(pa.concat_tables([self._codes, known]))
        if self._work is None:
            spool.close()
        return written

    def _write_events(self, folder: Path, events: pa.Table) -> None:
        if not events["text_value"].drop_null().length():
            events = events.drop_columns(["text_value"])
        subject = ids(events)
        splits = self._split_table(np.unique(subject))
        subjects = ids(splits)
        rows = np.searchsorted(subjects, subject)
        for name in SPLIT_NAMES:
            chosen = np.asarray(pc.equal(splits["split"], name).to_numpy(), np.bool_)
            table = events.filter(pa.array(chosen[rows], pa.bool_()))
            write_shards(table, folder / DATA / name, EVENTS_PER_FILE)

    def _split_table(self, subjects: Int64) -> pa.Table:
        given = self._splits
        if given is None:
            return split_table(subjects, assign(subjects, key=DEFAULT_KEY))
        if isinstance(given, Mapping):
            given = pa.table(
                {
                    "subject_id": pa.array(list(given), pa.int64()),
                    "split": pa.array(list(given.values()), pa.string()),
                }
            )
        given = conform(given, SPLITS, f"{self._name}: {SPLITS_FILE}")
        others = np.setdiff1d(subjects, ids(given))
        rest = split_table(others, assign(others, key=DEFAULT_KEY))
        table = pa.concat_tables([given, rest]).sort_by("subject_id")
        return table.filter(pc.is_in(table["subject_id"], pa.array(subjects)))

    def _code_table(self, names: list[str]) -> pa.Table:
        wanted = pa.array(sorted(self._with_ancestors(names)), pa.string())
        known = self._codes.filter(pc.is_in(self._codes["code"], wanted))
        rest = sorted(set(names) - set(known["code"].to_pylist()))
        described = [
            mark(self._scores) if self._scores and name.startswith(PRS_PREFIX) else None
            for name in rest
        ]
        more = pa.table(
            {
                "code": pa.array(rest, pa.string()),
                "description": pa.array(described, pa.string()),
                "parent_codes": pa.nulls(len(rest), pa.list_(pa.string())),
            },
            schema=CODES,
        )
        return pa.concat_tables([known.cast(CODES), more]).sort_by("code")

    def _with_ancestors(self, names: list[str]) -> set[str]:
        """Return `names` and every code above them, which a tokeniser falls back on."""
        codes, parents = self._codes["code"].to_pylist(), self._codes["parent_codes"].to_pylist()
        above = {code: tuple(of or ()) for code, of in zip(codes, parents, strict=True)}
        found, new = set(names), set(names)
        while new:
            new = {parent for code in new for parent in above.get(code, ())} - found
            found |= new
        return found

    def _marker(self, devices: tuple[str, ...], rejected: dict[str, int]) -> dict[str, Any]:
        return {
            "dataset_name": self._name,
            "etl_name": "healthfm",
            "etl_version": _version("healthfm"),
            "meds_version": _version("meds"),
            "additional_value_modality_columns": [f"{WEARABLE_FOLDER}/{d}" for d in devices],
            OWN_KEY: {"rejected": rejected, "scores": self._scores or None},
        }


def add_labels(store: Path, task: str, table: pa.Table, *, overwrite: bool = False) -> None:
    """Add a task's labels to a finished store, whole or not at all.

    Args:
        store: The store's folder.
        task: The file's name.
        table: MEDS label columns; further columns are kept.
        overwrite: Replace labels of that name.

    Raises:
        IngestError: HF-304 where the task has labels already.
        StoreError: HF-201, HF-202, HF-204, HF-210.
    """
    where = f"{LABELS_FOLDER}/{task}.parquet"
    file = store / where
    if file.exists() and not overwrite:
        raise IngestError(
            304,
            where=where,
            seen="the task has labels already",
            wanted="a new name is wanted, since nothing is replaced unasked",
            do="Name the task otherwise, or give --overwrite.",
        )
    checked = check_labels(table, ids(read_splits(store)), where)
    partial = file.with_name(f".{task}.partial-{secrets.token_hex(4)}")
    try:
        write_parquet(checked, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


class Replacing:
    """A temporary folder beside `path` that takes its name when the block ends well.

    What stood at `path` goes only once the new folder is complete. After an exception the
    temporary folder is removed and `path` is as it was.

    Raises:
        IngestError: HF-304 where `path` exists and `overwrite` is false, on entering.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._path = path
        self._overwrite = overwrite
        self._folder = path.parent / f".{path.name}.partial-{secrets.token_hex(4)}"

    def __enter__(self) -> Path:
        refuse_existing(self._path, self._overwrite)
        self._folder.mkdir(parents=True)
        return self._folder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._take_the_name()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _take_the_name(self) -> None:
        old = self._folder.with_name(f"{self._folder.name}.old")
        if self._path.exists():
            self._path.rename(old)
        try:
            self._folder.rename(self._path)
        except OSError:
            if old.exists():
                old.rename(self._path)
            raise
        shutil.rmtree(old, ignore_errors=True)


@cache
def _version(package: str) -> str:
    """Return a package's version, which takes longer to look up than a small store to write."""
    return version(package)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise HF-304 where `path` exists, unless it may be replaced and holds stores only."""
    if not path.exists() or (overwrite and _replaceable(path)):
        return
    raise IngestError(
        304,
        where=path.name,
        seen="the output folder exists already" + (" and holds no store" if overwrite else ""),
        wanted="a new one is wanted, since nothing is replaced unasked",
        do="Name another folder" + ("." if overwrite else ", or give --overwrite."),
    )


def _replaceable(path: Path) -> bool:
    if not path.is_dir():
        return False
    inside = list(path.iterdir())
    return (path / "metadata").is_dir() or all((child / "metadata").is_dir() for child in inside)


def _nothing_usable(name: str) -> IngestError:
    return IngestError(
        306,
        where=name,
        seen="there is no usable row",
        wanted="at least one is wanted",
        do="Check the source's export.",
    )


def _with_texts(codes: pa.Table, texts: Mapping[str, str]) -> pa.Table:
    """Return what is known of codes, in the source's words where nobody else says what one is."""
    own = pa.array([texts.get(code) for code in codes["code"].to_pylist()], pa.string())
    described = pc.coalesce(codes["description"], own)
    return codes.set_column(codes.column_names.index("description"), "description", described)
