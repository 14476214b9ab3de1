"""Whose rows these are: a source's own ids as subject_ids of the store.

By a table of ids where one is given; else by a keyed hash where the site has a key; else the number
that an id is, or a plain hash of one that is none. A keyed hash (HMAC-SHA-256, 63 bits) is the same
for every source read with the key, which is made at the site and never leaves it: whoever sees a
store without the key cannot go back from a subject_id, nor try out ids.
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
        return _mapped(names, options.subjects)
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


def _mapped(names: Sequence[str], file: Path) -> Int64:
    if not file.is_file():
        raise unreadable(file, "there is no such file")
    table = TableFile(file)
    want_columns(table, [SUBJECT])
    others = [name for name in table.columns if name != SUBJECT]
    if len(others) != 1:
        raise IngestError(
            307,
            where=file.name,
            seen=f"{len(others)} columns stand beside subject_id",
            wanted="two columns are wanted: the source's id, and subject_id",
            do="Keep those two",
        )
    chosen = f"CAST({table.column(others[0])} AS VARCHAR) AS id"
    number = f"TRY_CAST({table.column(SUBJECT)} AS BIGINT) AS subject_id"
    rows = DuckDBReader().table(f"SELECT {chosen}, {number} FROM {table.source()}", file)
    if rows[SUBJECT].null_count:
        raise IngestError(
            308,
            where=file.name,
            seen='column "subject_id" is not an integer throughout',
            wanted="integers are wanted",
            do="Correct the table",
        )
    known = dict(zip(rows["id"].to_pylist(), rows[SUBJECT].to_pylist(), strict=True))
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
