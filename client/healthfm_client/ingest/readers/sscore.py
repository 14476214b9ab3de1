"""Polygenic scores as plink2 ``--score`` and AoUPRS write them: raw sums, z-scored at the site.

plink2: ``#IID`` and a ``<NAME>_SUM`` or ``<NAME>_AVG`` for each score; files that say a chromosome
in their names (``chr1`` …, ``c1`` …, or the number alone) are parts of one score and added up, as
UK Biobank's genotypes come. ``PC1`` … are projections on principal components, not scores: with
them a person's z is what they leave of the score. AoUPRS: a CSV per score, named after it, with
``s`` and ``sum_weights``. Without components neither knows ancestry, and the store says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from healthfm_client.ingest.reader_interface import Reader, Site
from healthfm_client.ingest.readers.pgsc_calc import ScoreOptions, scored
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    check_gzip,
    check_zstd,
    is_table,
    stem_of,
)
from healthfm_client.ingest.tables.parquet_columns import refuse_empty, refuse_nulls
from healthfm_core.data.store.events import coded, repeated
from healthfm_core.data.store.genetics import COMPONENTS_Z, components_z
from healthfm_core.errors import IngestError

AOUPRS: Final = ("s", "sum_weights")
AUTOSOMES: Final = tuple(str(number) for number in range(1, 23))
_SUFFIXES: Final = (".sscore", ".sscore.gz", ".sscore.zst")
_SCORE: Final = re.compile(r"(.+)_(sum|avg)$")
_NOT_SCORES: Final = frozenset({"named_allele_dosage", "allele"})
_UNNAMED: Final = re.compile(r"SCORE\d+")
"""What plink2 calls a score whose file has no header."""
_COMPONENT: Final = re.compile(r"PC\d+")
_CATALOGUE_ID: Final = re.compile(r"PGS\d{6}")
_WHICH: Final = r"0?(\d{1,2}|xy|x|y|mt)"
_CHROMOSOME: Final = re.compile(
    rf"(?<![a-z0-9])(?:chromosome|chrom|chr|c)[._-]?{_WHICH}(?![a-z0-9])|^{_WHICH}$"
)
_ALLELES: Final = ("allele_ct", "nmiss_allele_ct", "nallele")
"""The column that a sum was divided by to be the average, as plink2 has called it so far."""


class SscoreOptions(ScoreOptions):
    """Options of ``sscore``."""

    names: tuple[str, ...] = Field(
        (), description="which score an unnamed one is: SCORE1=PGS000018, as many as there are"
    )
    some_chromosomes: bool = Field(
        False, description="the files of chromosomes are all there are, though fewer than 22"
    )

    @field_validator("names")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for said in names:
            unnamed, _, name = said.partition("=")
            odd = _COMPONENT.fullmatch(name.upper()) or not re.fullmatch(r"[\w.-]+", name)
            if odd or not _UNNAMED.fullmatch(unnamed.upper()):
                raise ValueError("a name is given as SCORE1=PGS000018")
        return names

    @property
    def name_of(self) -> dict[str, str]:
        """Unnamed score → the name it is given."""
        pairs = (said.upper().partition("=") for said in self.names)
        return {unnamed: name for unnamed, _, name in pairs}


def read(path: Path, options: SscoreOptions) -> Iterator[Site]:
    """Yield the scores as a site, or as what the site `base` has besides."""
    totals, rejected = _totals(path, options)
    component = pc.match_substring_regex(totals["PGS"], rf"^{_COMPONENT.pattern}$")
    scores = totals.filter(pc.invert(component))
    if totals.num_rows and not scores.num_rows:
        raise IngestError(
            307,
            where=path.name,
            seen="its columns are projections on principal components (PC1 …), and no score",
            wanted="a column per score is wanted",
            do="Name the file with scores, or the folder that holds both",
        )
    refuse_empty(scores, path.name)
    if totals.num_rows > scores.num_rows:
        scores = _without_ancestry(scores, totals.filter(component))
        unplaced = scores.filter(pc.is_nan(scores[COMPONENTS_Z])).select(["IID", "PGS"])
        rejected |= {"no_components": unplaced} if unplaced.num_rows else {}
    for site in scored(scores, path, options):
        yield replace(site, rejected={**site.rejected, **rejected})


def _totals(path: Path, options: SscoreOptions) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Return IID, PGS and SUM over all chromosomes, and who has none with the reason."""
    held: dict[str, set[str]] = {}
    totals, withdrawn = _empty(), pa.table({"IID": pa.array([], pa.string())})
    for chromosome, files in _by_chromosome(_files(path)).items():
        rows = pa.concat_tables([_empty(), *(_long(file, options, chromosome) for file in files)])
        refuse_nulls(rows, ["IID"], path.name)
        gone = pc.match_substring_regex(rows["IID"], r"^-\d+$")
        withdrawn = pa.concat_tables([withdrawn, rows.filter(gone).select(["IID"])])
        rows = rows.filter(pc.invert(gone))
        if repeated([coded(rows["IID"])[0], coded(rows["PGS"])[0]]).any():
            raise _twice(path.name)
        for name in rows["PGS"].unique().to_pylist():
            held.setdefault(name, set()).add(chromosome)
        both = pa.concat_tables([totals, rows]).group_by(["IID", "PGS"], use_threads=False)
        sums = both.aggregate([("SUM", "sum"), ("parts", "sum")])
        totals = sums.rename_columns(_empty().column_names)
    _refuse_gaps(held, path.name, some=options.some_chromosomes)
    score, names = coded(totals["PGS"])
    wanted = np.array([len(held[name]) for name in names], np.int64)
    whole = pa.array(totals["parts"].to_numpy() == wanted[score], pa.bool_())
    rejected = {
        "no_score": totals.filter(pc.invert(whole)).select(["IID", "PGS"]),
        "withdrawn": withdrawn.group_by("IID").aggregate([]),
    }
    kept = totals.filter(whole).drop_columns(["parts"])
    return kept, {reason: rows for reason, rows in rejected.items() if rows.num_rows}


def _by_chromosome(files: Sequence[TableFile]) -> dict[str, list[TableFile]]:
    """Return chromosome → its files; '' has those that say none."""
    found: dict[str, list[TableFile]] = {}
    for file in files:
        is_whole = set(AOUPRS) <= set(file.columns)
        found.setdefault("" if is_whole else chromosome_of(file.path), []).append(file)
    return found


def chromosome_of(file: Path) -> str:
    """Return the chromosome that a file's name says, '' where it says none."""
    stem = stem_of(file)
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    match = _CHROMOSOME.search(stem)
    return (match[1] or match[2]) if match else ""


def _refuse_gaps(held: Mapping[str, set[str]], where: str, *, some: bool) -> None:
    """Raise HF-306 where a score is there whole and in parts, or not of every autosome."""
    for chromosomes in held.values():
        if "" in chromosomes and len(chromosomes) > 1:
            raise _twice(where)
        missing = [one for one in AUTOSOMES if one not in chromosomes]
        if missing and "" not in chromosomes and not some:
            raise IngestError(
                306,
                where=where,
                seen=f"files of the chromosomes {', '.join(missing)} are not there",
                wanted="a score is wanted over all 22",
                do="Add them, or, where the score has no variant on them, give --some-chromosomes",
            )


def _long(file: TableFile, options: SscoreOptions, chromosome: str) -> pa.Table:
    """Return IID, PGS, SUM and 1 or 0 parts of a file, whether it is a number."""
    check_gzip(file.path)
    check_zstd(file.path)
    if set(AOUPRS) <= set(file.columns):
        chosen = {stem_of(file.path).upper(): "sum_weights"}
        person = "s"
    else:
        chosen = _named(score_columns(file.columns), file, options)
        person = "iid"
    parts = []
    for name, column in chosen.items():
        iid = f"TRY_CAST({file.column(person)} AS VARCHAR) AS IID"
        total = f"{file.cast(column, 'DOUBLE')}{_times_alleles(file, column, chromosome)} AS SUM"
        rows = DuckDBReader().table(f"SELECT {iid}, {total} FROM {file.source()}", file.path)
        _refuse_texts(rows, column, file.path)
        known = pc.fill_null(pc.is_finite(rows["SUM"]), False)
        rows = rows.set_column(1, "SUM", pc.if_else(known, rows["SUM"], 0.0))
        rows = rows.add_column(1, "PGS", pa.array([name] * rows.num_rows, pa.string()))
        parts.append(rows.append_column("parts", known.cast(pa.int64())))
    return pa.concat_tables([_empty(), *parts])


def _times_alleles(file: TableFile, column: str, chromosome: str) -> str:
    """Return what makes an average a sum, as parts of one score must be."""
    if not chromosome or not column.endswith("_avg"):
        return ""
    alleles = next((name for name in _ALLELES if name in file.columns), None)
    if alleles is None:
        raise IngestError(
            307,
            where=file.path.name,
            seen="it has averages of one chromosome, and not over how many alleles (ALLELE_CT)",
            wanted="sums are wanted, since averages of chromosomes do not add up",
            do="Score again with plink2's cols=+scoresums",
        )
    return f" * {file.cast(alleles, 'DOUBLE')}"


def _named(columns: Mapping[str, str], file: TableFile, options: SscoreOptions) -> dict[str, str]:
    """Return score → column, where plink2 gave no name that of the file or of the options."""
    unnamed = [name for name in columns if _UNNAMED.fullmatch(name)]
    ids = set(_CATALOGUE_ID.findall(file.path.name.upper()))
    said = {unnamed[0]: ids.pop()} if len(unnamed) == len(ids) == 1 else options.name_of
    for name in unnamed:
        if name not in said:
            raise IngestError(
                307,
                where=file.path.name,
                seen=f"a score is called {name}, as plink2 calls every score without a name",
                wanted="the score's name is wanted, which other sites know",
                do=f"Give it: --names {name}=PGS000018",
            )
    return {said.get(name, name): column for name, column in columns.items()}


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


def _without_ancestry(scores: pa.Table, components: pa.Table) -> pa.Table:
    """Return the scores with what the components leave of each, NaN for who lacks one."""
    person, names = coded(pa.chunked_array([*scores["IID"].chunks, *components["IID"].chunks]))
    which, axis_names = coded(components["PGS"])
    axes = np.full((len(names), len(axis_names)), np.nan)
    axes[person[scores.num_rows :], which] = components["SUM"].to_numpy()
    score, score_names = coded(scores["PGS"])
    total = np.asarray(scores["SUM"].to_numpy(), np.float64)
    z = np.full(len(total), np.nan)
    for at in range(len(score_names)):
        rows = np.flatnonzero(score == at)
        z[rows] = components_z(total[rows], axes[person[rows]])
    return scores.append_column(COMPONENTS_Z, pa.array(z))


def _refuse_texts(rows: pa.Table, column: str, file: Path) -> None:
    if rows.num_rows and pc.all(pc.is_null(rows["SUM"])).as_py():
        raise IngestError(
            308,
            where=file.name,
            seen=f'column "{column}" holds no number',
            wanted="numbers are wanted",
            do="Score the samples again",
        )


def _twice(where: str) -> IngestError:
    return IngestError(
        306,
        where=where,
        seen="a person has a score twice",
        wanted="each score is wanted once, or in files of its chromosomes, called chr1, chr2 …",
        do="Keep one file of each score, or name the chromosome in each file's name",
    )


def _empty() -> pa.Table:
    kinds = [("IID", pa.string()), ("PGS", pa.string()), ("SUM", pa.float64())]
    return pa.schema([*kinds, ("parts", pa.int64())]).empty_table()


def _files(path: Path) -> list[TableFile]:
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = (
        f for f in inside if f.is_file() and (is_table(f) or f.name.lower().endswith(_SUFFIXES))
    )
    return [one for one in map(TableFile, files) if _numbers_of(one)]


def _numbers_of(file: TableFile) -> set[str]:
    """Return the scores and components of a file."""
    if set(AOUPRS) <= set(file.columns):
        return {stem_of(file.path).upper()}
    return set(score_columns(file.columns)) if "iid" in file.columns else set()


def sniff(path: Path) -> bool:
    """Whether there is a file with scores of plink2 or AoUPRS."""
    try:
        names = (name for file in _files(path) for name in _numbers_of(file))
        return any(not _COMPONENT.fullmatch(name) for name in names)
    except IngestError:
        return False


READER = Reader(
    name="sscore",
    summary="polygenic scores of plink2 (.sscore) or AoUPRS; one site, or added to a store",
    reads=("scores of plink2, by chromosome or whole, projections on components; AoUPRS's scores"),
    not_read="people without components, or without one of the chromosomes, are counted",
    tried_on="files that the tests write in plink2's and AoUPRS's columns; none of a real person",
    sniff=sniff,
    read=read,
    options=SscoreOptions,
    links=True,
)
