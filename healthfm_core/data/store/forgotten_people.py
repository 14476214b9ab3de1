"""Taking people who withdrew out of a store: every row of theirs, and no trace of their ids.

What is left says when how many were taken out, with how many rows, and keeps a keyed hash of each
id, so that the same source read again does not bring them back. The hash's key lies beside it:
whoever may read the store can try ids out, as they could in the store before.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_core.arrays import Int64
from healthfm_core.data.store.compacted_store import compacted
from healthfm_core.data.store.draft_folder import draft_beside, link_file, publish
from healthfm_core.data.store.rejected_files import rejected_by_reason
from healthfm_core.data.store.schemas import CODES, SOURCE_CODES, conform
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import (
    CODES_FILE,
    DATA,
    LABELS_FOLDER,
    OWN_KEY,
    REJECTED_FOLDER,
    SOURCE_CODES_FILE,
    SPLITS_FILE,
    WEARABLE_FOLDER,
    in_order,
    may_hold,
    read_marker,
    read_parquet,
    write_marker,
    write_parquet,
)
from healthfm_core.data.store.store_layers import update_folders
from healthfm_core.errors import StoreError

FORGOTTEN_FILE: Final = "metadata/forgotten.json"
_SUBJECT: Final = "subject_id"
_KINDS: Final = {
    DATA: "events",
    WEARABLE_FOLDER: "stretches of a wearable",
    LABELS_FOLDER: "labels",
    REJECTED_FOLDER: "rows that were set aside",
}


@dataclass(frozen=True)
class ForgottenPeople:
    """Whom a store forgot, told by a keyed hash of the id.

    Attributes:
        key: Of the hashes, 32 bytes, made with the store's first.
        hashes: HMAC-SHA-256 of each id, in hex.
        record: When, how many people and rows; nothing about them.
    """

    key: bytes
    hashes: frozenset[str] = frozenset()
    record: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, store: Path) -> Self:
        """Return those of a store; nobody where it forgot nobody, or there is no store.

        Raises:
            StoreError: The file cannot be read (HF-209).
        """
        try:
            said = json.loads((store / FORGOTTEN_FILE).read_text("utf-8"))
            key, hashes = bytes.fromhex(said["key"]), frozenset(map(str, said["people"]))
            return cls(key, hashes, tuple(said["record"]))
        except FileNotFoundError:
            return cls(secrets.token_bytes(32))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(209, where=FORGOTTEN_FILE, seen="the file cannot be read") from error

    def among(self, subjects: Int64) -> Int64:
        """Return those of `subjects` who were forgotten."""
        if not self.hashes:
            return subjects[:0]
        found = [subject for subject in subjects.tolist() if self._hash(subject) in self.hashes]
        return np.array(found, np.int64)

    def with_more(self, subjects: Int64, row: Mapping[str, Any]) -> Self:
        """Return these and `subjects`, with a row more in the record."""
        more = frozenset(map(self._hash, subjects.tolist()))
        return type(self)(self.key, self.hashes | more, (*self.record, row))

    def write(self, store: Path) -> None:
        """Write them into a store in the making; nothing where there is nobody."""
        if self.hashes:
            said = {"key": self.key.hex(), "people": sorted(self.hashes), "record": self.record}
            (store / FORGOTTEN_FILE).write_text(json.dumps(said, indent=1) + "\n", "utf-8")

    def _hash(self, subject: int) -> str:
        return hmac.digest(self.key, str(subject).encode(), "sha256").hex()


@dataclass(frozen=True)
class Removal:
    """What goes with some people out of a store.

    Attributes:
        store: Its folder.
        people: How many of them it has.
        rows: Kind of row → how many; those without any are not named.
        without_ids: Files of rejected rows that name nobody by a subject_id.
    """

    store: Path
    people: int
    rows: Mapping[str, int]
    without_ids: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return it in words."""
        what = ", ".join(f"{count:,} {kind}" for kind, count in self.rows.items())
        return f"{self.store}: {self.people:,} of its people, {what or 'no rows'}"


def what_goes(path: Path, subjects: Int64) -> Removal:
    """Return what `forget` would take out of a store.

    Raises:
        StoreError: HF-2xx where it cannot be read.
    """
    known = np.intersect1d(SiteStore.open(path).subjects(), subjects)
    wanted = pa.array(np.unique(subjects))  # of somebody unknown rows may have been set aside
    rows, without_ids = dict.fromkeys(_KINDS.values(), 0), []
    for folder, file in _files(path):
        if not _names_people(file):
            without_ids.append(file.relative_to(path).as_posix())
        elif may_hold(file, file.name, wanted):
            column = read_parquet(file, file.name, [_SUBJECT])[_SUBJECT]
            rows[_KINDS[folder]] += pc.sum(pc.is_in(column, wanted)).as_py() or 0
    found = {kind: count for kind, count in rows.items() if count}
    return Removal(path, len(known), found, tuple(without_ids))


def forget(path: Path, subjects: Int64, *, today: date | None = None) -> Removal:
    """Take people out of a store, which is as it was or without them, whenever this is killed.

    Files that have nothing of theirs are not written again, but the events of a store with updates,
    which are put together first. Splits, labels and files of the others keep their bytes or their
    rows.

    Args:
        path: The store.
        subjects: Whom; those that it does not have are only kept out from now on.
        today: Written into the record; None is this day, UTC.

    Returns:
        What went.

    Raises:
        StoreError: HF-206 where nobody would be left, HF-2xx where it cannot be read.
    """
    store = SiteStore.open(path)
    removal = what_goes(path, subjects)
    if removal.people == len(store.subjects()):
        raise StoreError(
            206,
            where=path.name,
            seen="nobody would be left in it",
            wanted="a store of somebody is wanted",
            do="Take the store out of the site's with leave or join, and delete its folder",
        )
    day = (today or datetime.now(UTC).date()).isoformat()
    row = {"day": day, "people": removal.people, "rows": dict(removal.rows)}
    with draft_beside(path) as draft:
        write_without(path, draft, subjects)
        ForgottenPeople.of(path).with_more(subjects, row).write(draft)
        if len(np.intersect1d(SiteStore.open(draft).subjects(), subjects)):
            raise AssertionError("somebody to be forgotten is in the store still")
        publish(draft, path)
    return removal


def write_without(store: Path, draft: Path, subjects: Int64) -> None:
    """Write a store without some people and without updates; what has nothing of theirs is linked.

    Args:
        store: It stays as it is.
        draft: A new folder beside it.
        subjects: Whom.

    Raises:
        StoreError: HF-2xx where it cannot be read.
    """
    wanted = pa.array(np.unique(subjects))
    with compacted(store) as whole:
        gone = _write_others(whole, draft, wanted)
        _write_metadata(whole, draft, wanted, _only_theirs(draft, gone))
        _mark(whole, draft)


def _files(store: Path) -> Iterator[tuple[str, Path]]:
    for folder in _KINDS:
        for file in in_order(store / folder):
            yield folder, file
    for update in update_folders(store):
        for file in in_order(update / DATA):
            yield DATA, file


def _names_people(file: Path) -> bool:
    schema = pq.read_schema(file)
    at = schema.get_field_index(_SUBJECT)
    return at >= 0 and pa.types.is_integer(schema.field(at).type)


def _write_others(store: Path, draft: Path, wanted: pa.Array) -> set[str]:
    """Write what has nothing of theirs as it is, the rest without them; return their codes."""
    codes: set[str] = set()
    for folder, file in _files(store):
        place = draft / file.relative_to(store)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not (_names_people(file) and may_hold(file, file.name, wanted)):
            link_file(file, place)
            continue
        table = read_parquet(file, file.name)
        theirs = pc.is_in(table[_SUBJECT], wanted)
        if folder == DATA:
            codes.update(table.filter(theirs)["code"].unique().to_pylist())
        if not pc.any(theirs).as_py():
            link_file(file, place)
        elif not pc.all(theirs).as_py() or folder == LABELS_FOLDER:
            write_parquet(table.filter(pc.invert(theirs)), place)
    return codes


def _only_theirs(store: Path, codes: set[str]) -> set[str]:
    """Return those of `codes` that no event of a store has."""
    left = set(codes)
    for file in in_order(store / DATA):
        if not left:
            break
        has = read_parquet(file, file.name, ["code"], coded=("code",))["code"]
        left.difference_update(has.unique().to_pylist())
    return left


def _write_metadata(store: Path, draft: Path, wanted: pa.Array, codes: set[str]) -> None:
    (draft / SPLITS_FILE).parent.mkdir(parents=True, exist_ok=True)
    splits = read_parquet(store / SPLITS_FILE, SPLITS_FILE)
    write_parquet(splits.filter(pc.invert(pc.is_in(splits[_SUBJECT], wanted))), draft / SPLITS_FILE)
    for name, schema in ((CODES_FILE, CODES), (SOURCE_CODES_FILE, SOURCE_CODES)):
        if (store / name).is_file():
            table = conform(read_parquet(store / name, name), schema, name)
            if name == CODES_FILE:
                codes = codes - set(pc.list_flatten(table["parent_codes"]).to_pylist())
            own = pc.is_in(table["code"], pa.array(sorted(codes), pa.string()))
            write_parquet(table.filter(pc.invert(own)), draft / name)


def _mark(store: Path, draft: Path) -> None:
    """Write dataset.json, last of all, with the rows that are still set aside."""
    marker = read_marker(store)
    own = dict(marker.get(OWN_KEY, {}))
    left = rejected_by_reason(draft / REJECTED_FOLDER, own.get("rejected", {}))
    write_marker(draft, {**marker, OWN_KEY: {**own, "rejected": left}})
