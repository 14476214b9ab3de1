"""Polygenic scores as a wide table: a row per person, a column per score, CSV or Parquet.

``IID``, a column per score with ``PGS`` in its name, raw sums; and, where there are any, the
principal components of ancestry ``PC1`` …: then a person's z is what their components leave of the
score. Without them a score is standardised over the site's people and marked so. A column of sites
gives a store each, and every site is standardised by itself, as it would be at home.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from healthfm_client.ingest.reader_interface import Reader, Site
from healthfm_client.ingest.readers.pgsc_calc import ScoreOptions, scored
from healthfm_client.ingest.readers.sscore import score_columns
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    check_gzip,
    is_table,
    want_columns,
)
from healthfm_client.ingest.tables.parquet_columns import (
    by_group,
    folder_name,
    refuse_empty,
    refuse_nulls,
)
from healthfm_core.data.store.genetics import COMPONENTS_Z, components_z
from healthfm_core.errors import IngestError

_SCORE: Final = re.compile(r"\w*pgs\w+")
_COMPONENT: Final = re.compile(r"pc\d+")
_SITE: Final = "site"


class ScoreTableOptions(ScoreOptions):
    """Options of ``score_table``."""

    site_column: str = Field("", description="column of the site; '' is one site")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.site_column and self.base is not None:
            raise ValueError("scores of several sites cannot be added to one store (base)")
        return self


def read(path: Path, options: ScoreTableOptions) -> Iterator[Site]:
    """Yield the scores by site, or as what the site `base` has besides."""
    file = TableFile(path)
    check_gzip(path)
    wide = _wide(file, options.site_column)
    refuse_empty(wide, path.name)
    refuse_nulls(wide, ["iid", *([_SITE] if options.site_column else [])], path.name)
    if not options.site_column:
        yield from _scored(wide, path, options)
        return
    for name, rows in by_group(wide, _SITE):
        for site in _scored(rows, path, options):
            yield replace(site, name=folder_name(name))


def _wide(file: TableFile, site_column: str) -> pa.Table:
    want_columns(file, ["iid", *([site_column.lower()] if site_column else [])])
    columns = [f"TRY_CAST({file.column('iid')} AS VARCHAR) AS iid"]
    if site_column:
        columns.append(f"TRY_CAST({file.column(site_column.lower())} AS VARCHAR) AS {_SITE}")
    scores = _of(_SCORE, file)
    if not scores:
        raise IngestError(
            307,
            where=file.path.name,
            seen="no column is named as a score",
            wanted="a column per score, with PGS in its name, is wanted",
            do="Name the columns by the catalogue's ids, PGS000001 for one",
        )
    numbers = [*scores, *_of(_COMPONENT, file)]
    columns += [f"TRY_CAST({file.column(name)} AS DOUBLE) AS {name}" for name in numbers]
    return DuckDBReader().table(f"SELECT {', '.join(columns)} FROM {file.source()}", file.path)


def _of(pattern: re.Pattern[str], file: TableFile) -> list[str]:
    return [name for name in file.columns if pattern.fullmatch(name)]


def _scored(wide: pa.Table, path: Path, options: ScoreTableOptions) -> Iterator[Site]:
    """Yield a site's scores; who lacks a component lacks a z, and is counted."""
    names = [name for name in wide.column_names if _SCORE.fullmatch(name)]
    pcs = [name for name in wide.column_names if _COMPONENT.fullmatch(name)]
    axes = np.array([wide[name].fill_null(np.nan).to_numpy() for name in pcs], np.float64).T
    tables = []
    for name in names:
        total = np.asarray(wide[name].fill_null(np.nan).to_numpy(), np.float64)
        one = pa.table({"IID": wide["iid"], "PGS": [name.upper()] * len(total), "SUM": total})
        if pcs:
            one = one.append_column(COMPONENTS_Z, pa.array(components_z(total, axes)))
        tables.append(one.filter(pa.array(np.isfinite(total))))
    table = pa.concat_tables(tables)
    refuse_empty(table, path.name)
    unplaced = table.filter(pc.is_nan(table[COMPONENTS_Z])) if pcs else table.slice(0, 0)
    for site in scored(table, path, options):
        rejected = {"no_components": unplaced.select(["IID", "PGS"])} if unplaced.num_rows else {}
        yield replace(site, rejected={**site.rejected, **rejected})


def sniff(path: Path) -> bool:
    """Whether the file is a wide table of scores."""
    if not path.is_file() or not is_table(path):
        return False
    file = TableFile(path)
    try:
        columns = set(file.columns)
    except IngestError:
        return False
    long = "sampleset" in columns or score_columns(file.columns)
    return "iid" in columns and not long and bool(_of(_SCORE, file))


READER = Reader(
    name="score_table",
    summary="polygenic scores, a column each, with principal components; by site, or for a store",
    reads="a score per person and column, principal components",
    not_read="people without components are counted",
    tried_on="1000 Genomes and HGDP: 2,504 people × 7 scores, 929 × 1",
    sniff=sniff,
    read=read,
    options=ScoreTableOptions,
    links=True,
)
