"""Whose rows these are: a source's own ids as subject_ids of the store.

By a linking table where one is given, which has the store's own subject_id or the id that the
person has in another source of the site (``same_as``); else by a keyed hash where the site has a
key; else the number that an id is, or a plain hash of one that is none. A keyed hash (HMAC-SHA-256,
63 bits) is the same for every source read with the key, which is made at the site and never leaves
it: whoever sees a store without the key cannot go back from a subject_id, nor try out ids.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.reader_interface import ReaderOptions
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    unreadable,
    want_columns,
)
from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import encoded
from healthfm_core.errors import IngestError

SUBJECT: Final = "subject_id"
SAME_AS: Final = "same_as"
_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)
_KEY_BYTES: Final = 32


def numbers(names: Sequence[str], options: ReaderOptions, where: str) -> Int64:
    """Return the subject_id of each id, of which none may be there twice.

    Args:
        names: Distinct ids of the source.
        options: Its options `subjects` and `key`.
        where: Named in errors.

    Raises:
        IngestError: HF-303, HF-305 to HF-308.
    """
    if options.subjects is not None:
        return _mapped(names, options, where)
    return _numbered(names, options, where)


def _numbered(names: Sequence[str], options: ReaderOptions, where: str) -> Int64:
    """Return the subject_id of each id by the key, as the number that it is, or by a hash."""
    if options.key is not None:
        key = site_key(options.key)
        digests = (hmac.digest(key, name.encode(), "sha256") for name in names)
    elif all(_NUMBER.fullmatch(name) for name in names):
        return _distinct(np.array([int(name) for name in names], np.int64), where)
    else:
        digests = (hashlib.sha256(name.encode()).digest() for name in names)
    numbers_of = [int.from_bytes(digest[:8], "big") >> 1 for digest in digests]
    return _distinct(np.array(numbers_of, np.int64), where)


def linked(column: pa.ChunkedArray, options: ReaderOptions, where: str) -> pa.ChunkedArray:
    """Return a column of ids, integers or texts without nulls, as subject_ids."""
    index, names = encoded(column.cast(pa.string()))
    as_is = options.subjects is None and options.key is None
    plain = _plain_numbers(names, where) if as_is else None
    subject = numbers(names.to_pylist(), options, where) if plain is None else plain
    return pa.chunked_array([pa.array(subject[index])])


def site_key(file: Path) -> bytes:
    """Return the key in a file, which is made, for its owner's eyes only, where there is none.

    Raises:
        IngestError: HF-303 where it is no key of ours.
    """
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as new:
            new.write(secrets.token_hex(_KEY_BYTES) + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise unreadable(file, "the key cannot be made there") from error
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise unreadable(file, "it is not a key that ingest made") from error
    if len(key) != _KEY_BYTES:
        raise unreadable(file, "it is not a key that ingest made")
    return key


def _plain_numbers(names: pa.Array, where: str) -> Int64 | None:
    """Return ids that are numbers as such, None where one is none."""
    if not pc.all(pc.match_substring_regex(names, f"^{_NUMBER.pattern}$"), min_count=0).as_py():
        return None
    return _distinct(np.asarray(names.cast(pa.int64()).to_numpy(), np.int64), where)


def _mapped(names: Sequence[str], options: ReaderOptions, where: str) -> Int64:
    """Return what the linking table says of each id.

    Its column ``subject_id`` has the store's numbers; its column ``same_as`` the id that the person
    has in another source of the site, which becomes a number as it does there.
    """
    assert options.subjects is not None
    file = options.subjects
    table = _linking_table(file)
    to = SUBJECT if SUBJECT in table.columns else SAME_AS
    (own,) = (name for name in table.columns if name != to)
    kind = "TRY_CAST({} AS BIGINT)" if to == SUBJECT else "CAST({} AS VARCHAR)"
    chosen = f"CAST({table.column(own)} AS VARCHAR) AS id"
    rows = DuckDBReader().table(
        f"SELECT {chosen}, {kind.format(table.column(to))} AS linked FROM {table.source()}", file
    )
    if rows["linked"].null_count:
        seen = f'column "{to}" is not an integer throughout'
        raise IngestError(
            308,
            where=file.name,
            seen=seen if to == SUBJECT else f'column "{to}" is empty in some row',
            wanted="integers are wanted" if to == SUBJECT else "an id in every row is wanted",
            do="Correct the table",
        )
    others = rows["linked"].to_pylist()
    if to == SAME_AS:
        distinct = list(dict.fromkeys(others))
        number = dict(zip(distinct, _numbered(distinct, options, where).tolist(), strict=True))
        others = [number[other] for other in others]
    known = _each_once(rows["id"].to_pylist(), others, file)
    missing = sum(name not in known for name in names)
    if missing:
        raise IngestError(
            305,
            where=file.name,
            seen=f"{missing} ids of the source are not in it",
            wanted="every id of the source is wanted there",
            do="Complete the table",
        )
    return np.array([known[name] for name in names], np.int64)


def _linking_table(file: Path) -> TableFile:
    """Return the table of ids.

    Raises:
        IngestError: HF-303, HF-307.
    """
    if not file.is_file():
        raise unreadable(file, "there is no such file")
    table = TableFile(file)
    if SAME_AS not in table.columns:
        want_columns(table, [SUBJECT])
    if len(table.columns) != 2:
        to = SUBJECT if SUBJECT in table.columns else SAME_AS
        raise IngestError(
            307,
            where=file.name,
            seen=f"{len(table.columns) - 1} columns stand beside {to}",
            wanted="two columns are wanted: the source's id, and subject_id or same_as",
            do="Keep those two",
        )
    return table


def _each_once(ids: Sequence[str], others: Sequence[int], file: Path) -> dict[str, int]:
    """Return id → number.

    Raises:
        IngestError: HF-305 where an id stands for two people.
    """
    known: dict[str, int] = {}
    for name, number in zip(ids, others, strict=True):
        if known.setdefault(name, number) != number:
            raise IngestError(
                305,
                where=file.name,
                seen="an id of the source stands for two people",
                wanted="one person for each id is wanted",
                do="Correct the table",
            )
    return known


def _distinct(subject: Int64, where: str) -> Int64:
    if len(np.unique(subject)) < len(subject):
        raise IngestError(
            305,
            where=where,
            seen="two ids of the source become one subject_id",
            wanted="ids that stay apart are wanted (07 and 7 do not)",
            do="Give a table of ids and subject_ids (subjects)",
        )
    return subject
