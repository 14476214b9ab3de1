"""Polygenic scores as pgsc_calc writes them: a row per person and score.

Source: the PGS Catalog Calculator's ``aggregated_scores.txt.gz`` or ``<sampleset>_pgs.txt.gz``:
sampleset, [FID], IID, PGS, SUM and, after its ancestry step, Z_norm2 (mean and variance regressed
on principal components), which is taken where it is given. Elsewhere SUM is standardised over the
site's people and marked so.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pydantic import Field

from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.readers.meds import site_of
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.parquet_columns import refuse_empty, refuse_nulls
from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import coded, ids
from healthfm_core.data.store.genetics import COMPONENTS_Z, SITE_Z, Z_NORM2, site_z
from healthfm_core.errors import IngestError

REFERENCE: Final = "reference"
"""The sample set of the reference panel, whose people are nobody's patients."""
_TEXTS: Final = ("sampleset", "FID", "IID", "PGS")
_NEEDED: Final = ("sampleset", "IID", "PGS", "SUM")
_DELIMITERS: Final = "\t,; "


class ScoreOptions(ReaderOptions):
    """Options of ``pgsc_calc``."""

    base: Path | None = Field(None, description="store whose people these are; copied with them")
    sampleset: str | None = Field(None, description="which sample set, where there are several")


def read(path: Path, options: ScoreOptions) -> Iterator[Site]:
    """Yield the scores as a site, or as what the site `base` has besides."""
    yield from scored(_sampleset(read_scores(path), options.sampleset, path.name), path, options)


def scored(table: pa.Table, path: Path, options: ScoreOptions) -> Iterator[Site]:
    """Yield a table of scores as a site, or as what the site `base` has besides.

    Args:
        table: IID, PGS, SUM and, where there is one, Z_norm2 or components_z; a row per person
            and score.
        path: Where it is from.
        options: The reader's.
    """
    subject = _subjects(table, options, path.name)
    scores, normalisation = normalised(table, subject)
    if options.base is None:
        yield Site(name=None, scores=scores, normalisation=normalisation)
        return
    base = site_of(options.base, options)
    tables = [t for t in (base.events, *base.wearables.values()) if t is not None]
    known = np.unique(np.concatenate([ids(table) for table in tables]))
    there = pc.is_in(scores["subject_id"], pa.array(known))
    others = scores.filter(pc.invert(there))
    rejected = dict(base.rejected) | ({"unknown_subject": others} if others.num_rows else {})
    scores = scores.filter(there)
    refuse_empty(scores, path.name)
    yield replace(base, scores=scores, normalisation=normalisation, rejected=rejected)


def read_scores(path: Path) -> pa.Table:
    """Return a score file with its delimiter sniffed: texts as text, all else as numbers.

    Raises:
        IngestError: HF-303, HF-305 to HF-308.
    """
    header, delimiter = _header(path)
    for name in _NEEDED:
        if name not in header:
            raise _error(307, path.name, f'there is no column "{name}"', "pgsc_calc writes one")
    kinds = {name: pa.string() if name in _TEXTS else pa.float64() for name in header}
    kinds |= {name: pa.string() for name in header if name.startswith("MostSimilarPop")}
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=header, skip_rows=1),
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(
                column_types=kinds, strings_can_be_null=True, null_values=["", "NA", "nan", "NaN"]
            ),
        )
    except pa.ArrowInvalid as error:
        wrong = re.search(r"column #(\d+)", str(error))
        column = header[int(wrong[1])] if wrong and int(wrong[1]) < len(header) else None
        seen = f'column "{column}" is not a number throughout' if column else "rows are cut off"
        raise _error(308 if column else 303, path.name, seen, "numbers are wanted") from error
    except (OSError, pa.ArrowException) as error:
        raise _error(303, path.name, "the file is cut off or damaged", "text is wanted") from error
    refuse_empty(table, path.name)
    refuse_nulls(table, ["sampleset", "IID", "PGS"], path.name)
    return table


def _header(path: Path) -> tuple[list[str], str]:
    try:
        with gzip.open(path, "rt") if path.name.endswith(".gz") else path.open() as lines:
            first = lines.readline().rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise _error(303, path.name, "the file cannot be read", "text is wanted") from error
    delimiter = max(_DELIMITERS, key=first.count)
    return [name.strip().strip('"').removeprefix("#") for name in first.split(delimiter)], delimiter


def _sampleset(table: pa.Table, wanted: str | None, where: str) -> pa.Table:
    table = table.filter(pc.not_equal(table["sampleset"], REFERENCE))
    names = sorted(table["sampleset"].unique().to_pylist())
    if wanted is None and len(names) > 1:
        seen = f"there are {len(names)} sample sets: {', '.join(names)}"
        raise _error(306, where, seen, "one is wanted; name it with the option sampleset")
    if wanted is not None:
        table = table.filter(pc.equal(table["sampleset"], wanted))
    refuse_empty(table, where)
    return table


def normalised(table: pa.Table, subject: Int64) -> tuple[pa.Table, str]:
    """Return (subject_id, score, z) and how the z came about.

    Args:
        table: A score file's rows.
        subject: [N] the rows' subjects.
    """
    score, names = coded(table["PGS"])
    plain = [re.sub(r"(?i)_hmPOS_GRCh\d+$", "", name) for name in names]
    given = [name for name in (Z_NORM2, COMPONENTS_Z) if name in table.column_names]
    given = [name for name in given if table[name].null_count < table.num_rows]
    if given:
        how = given[0]
        z = np.asarray(table[how].fill_null(np.nan).to_numpy(), np.float64)
    else:
        total = np.asarray(table["SUM"].fill_null(np.nan).to_numpy(), np.float64)
        z, how = np.full(len(total), np.nan), SITE_Z
        for at in range(len(names)):
            z[score == at] = site_z(total[score == at])
    columns = {
        "subject_id": pa.array(subject, pa.int64()),
        "score": pa.array(plain, pa.string()).take(pa.array(score)),
        "z": pa.array(z),
    }
    return pa.table(columns), how


def _subjects(table: pa.Table, options: ScoreOptions, where: str) -> Int64:
    """Return each row's subject; see `linking`."""
    index, names = coded(table["IID"])
    plain = options.subjects is None and options.key is None
    if plain and options.base is not None and not all(name.isdecimal() for name in names):
        seen = "the IIDs are not the store's subject_ids"
        raise _error(305, where, seen, "a table of IID and subject_id is wanted (subjects)")
    return numbers(names, options, where)[index]


def _error(number: int, where: str, seen: str, wanted: str) -> IngestError:
    return IngestError(number, where=where, seen=seen, wanted=wanted, do="Check pgsc_calc's output")


def sniff(path: Path) -> bool:
    """Whether the file is a long table of scores."""
    if not path.is_file() or not re.search(r"\.(txt|csv|tsv)(\.gz)?$", path.name):
        return False
    try:
        header, _ = _header(path)
    except IngestError:
        return False
    return set(_NEEDED) <= set(header)


READER = Reader(
    name="pgsc_calc",
    summary="polygenic scores of the PGS Catalog Calculator; one site, or added to a store",
    reads="a score per person, standardised by ancestry where pgsc_calc did so",
    not_read="people whom the store does not have are counted",
    tried_on=(
        "pgsc_calc's own outputs: 2,504 people of 1000 Genomes, 4,131 with aggregated scores"
    ),
    sniff=sniff,
    read=read,
    options=ScoreOptions,
    links=True,
)
