"""Polygenic scores as plink2 ``--score`` and AoUPRS write them: raw sums, z-scored at the site.

plink2: ``#IID`` and a ``<NAME>_SUM`` or ``<NAME>_AVG`` for each score. AoUPRS: a CSV per score,
named after it, with ``s`` and ``sum_weights``. Neither knows ancestry, and the store says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.reader_interface import Reader, Site
from healthfm_client.ingest.readers.pgsc_calc import ScoreOptions, scored
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader, TableFile, is_table, stem_of
from healthfm_client.ingest.tables.parquet_columns import refuse_empty, refuse_nulls
from healthfm_core.errors import IngestError

_SCORE = re.compile(r"(.+)_(sum|avg)$")
_NOT_SCORES = frozenset({"named_allele_dosage", "allele"})
AOUPRS = ("s", "sum_weights")


def read(path: Path, options: ScoreOptions) -> Iterator[Site]:
    """Yield the scores as a site, or as what the site `base` has besides."""
    tables = [_long(file) for file in _files(path)]
    table = pa.concat_tables([_empty(), *tables])
    refuse_empty(table, path.name)
    refuse_nulls(table, ["IID"], path.name)
    yield from scored(table, path, options)


def _long(file: TableFile) -> pa.Table:
    """Return IID, PGS and SUM of a file."""
    if set(AOUPRS) <= set(file.columns):
        chosen = {stem_of(file.path).upper(): "sum_weights"}
        person = "s"
    else:
        chosen = score_columns(file.columns)
        person = "iid"
    parts = []
    for name, column in chosen.items():
        iid = f"TRY_CAST({file.column(person)} AS VARCHAR) AS IID"
        total = f"TRY_CAST({file.column(column)} AS DOUBLE) AS SUM"
        rows = DuckDBReader().table(f"SELECT {iid}, {total} FROM {file.source()}", file.path)
        _refuse_texts(rows, column, file.path)
        parts.append(rows.add_column(1, "PGS", pa.array([name] * rows.num_rows, pa.string())))
    return pa.concat_tables([_empty(), *parts])


def score_columns(columns: list[str]) -> dict[str, str]:
    """Return score → its column, the sum where sum and average are there."""
    columns_of: dict[str, str] = {}
    for column in columns:
        match = _SCORE.match(column)
        if match and match[1] not in _NOT_SCORES:
            name = match[1].upper()
            if name not in columns_of or match[2] == "sum":
                columns_of[name] = column
    return columns_of


def _refuse_texts(rows: pa.Table, column: str, file: Path) -> None:
    if rows.num_rows and pc.all(pc.is_null(rows["SUM"])).as_py():
        raise IngestError(
            308,
            where=file.name,
            seen=f'column "{column}" holds no number',
            wanted="numbers are wanted",
            do="Score the samples again",
        )


def _empty() -> pa.Table:
    kinds = [("IID", pa.string()), ("PGS", pa.string()), ("SUM", pa.float64())]
    return pa.schema(kinds).empty_table()


def _files(path: Path) -> list[TableFile]:
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    suffixes = (".sscore", ".sscore.gz")
    files = (
        f for f in inside if f.is_file() and (is_table(f) or f.name.lower().endswith(suffixes))
    )
    return [one for one in map(TableFile, files) if _has_scores(one)]


def _has_scores(file: TableFile) -> bool:
    columns = set(file.columns)
    return set(AOUPRS) <= columns or ("iid" in columns and bool(score_columns(file.columns)))


def sniff(path: Path) -> bool:
    """Whether there is a file with scores of plink2 or AoUPRS."""
    try:
        return bool(_files(path))
    except IngestError:
        return False


READER = Reader(
    name="sscore",
    summary="polygenic scores of plink2 (.sscore) or AoUPRS; one site, or added to a store",
    sniff=sniff,
    read=read,
    options=ScoreOptions,
    links=True,
)
