"""Codes put in place of others, by tables that the site brings and answers for.

Four forms, told apart by their columns: ``source_code, code`` (and ``unit``, of the source's
numbers, ``description``, and ``accept``: only rows that a person said yes to count); OMOP's
SOURCE_TO_CONCEPT_MAP; a file saved by OHDSI's Usagi, of which what is APPROVED counts; a folder of
OMOP vocabulary tables, as from Athena, whose relationship "Maps to" leads from a concept to its
standard one. Concepts get their names from the vocabulary tables of such a folder, or of the
source.

A source's code is looked for as the store would have it (``MEASUREMENT_SOURCE//GLU``), and by what
stands behind the domain alone (``GLU``) where the domain is no vocabulary of the world's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from healthfm_client.ingest.codes.distinct_codes import SEPARATOR, CodeAndUnit, joined, tidy
from healthfm_client.ingest.codes.molar_units import canonical_lab
from healthfm_client.ingest.codes.shared_spellings import shared_spelling
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    check_gzip,
    files_of,
    unreadable,
    want_columns,
)
from healthfm_core.errors import IngestError

VOCABULARIES: Final = frozenset(
    {
        *("SNOMED", "LOINC", "RxNorm", "RxNorm Extension", "ATC", "NDC", "CVX", "CPT4", "HCPCS"),
        *("ICD10CM", "ICD10", "ICD10PCS", "ICD9CM", "ICD9Proc", "OMOP", "UCUM"),
        *("Gender", "Race", "Ethnicity", "Visit"),
    }
)
"""Domains whose codes mean the same everywhere: those of another list are not meant by them."""
_LIMIT: Final = re.compile(r"(?P<limit>[<>]=?)?(?P<unit>.*)")
_MAPS_TO: Final = "Maps to"
_APPROVED: Final = "APPROVED"
_ACCEPTED: Final = ("yes", "y", "x", "1", "true")
"""What a person writes in a column ``accept``, as of `suggested_codes`; all else is no."""
_WANTED: Final = (
    "source_code and code; source_code and target_concept_id (SOURCE_TO_CONCEPT_MAP); sourceCode, "
    "conceptId and mappingStatus (Usagi); or a folder with CONCEPT and CONCEPT_RELATIONSHIP"
)


@dataclass(frozen=True)
class Target:
    """What stands for a source's code: a code without a unit, and the unit of the numbers."""

    code: str
    unit: str | None = None
    text: str | None = None


class CodeMapping:
    """The site's tables of codes, of which only codes that occur are asked for.

    Args:
        paths: Tables, and folders of vocabulary tables.
        beside: The source, in which CONCEPT is looked for too.

    Raises:
        IngestError: HF-301, HF-303, HF-307, HF-308.
    """

    def __init__(self, paths: Sequence[Path], beside: Path) -> None:
        self._reader = DuckDBReader()
        self._connection = self._reader.connection
        self._connection.execute(
            "CREATE TEMP TABLE mapping (vocabulary VARCHAR, source VARCHAR, code VARCHAR,"
            " concept BIGINT, unit VARCHAR, description VARCHAR)"
        )
        self._known: dict[str, tuple[Target, ...]] = {}
        folders = [path for path in paths if path.is_dir()]
        for path in paths:
            self._read(path)
        places = [*folders, *(path.parent for path in paths if path.is_file()), beside]
        self._name_concepts([file for place in places for file in files_of(place, "concept")])

    def new_codes(self, name: str, has_value: bool) -> list[CodeAndUnit] | None:
        """Return what stands for a code of the source, None where the tables do not have it.

        Args:
            name: As the reader gives it, with its unit or answer; `learn` has been told it.
            has_value: Whether its rows have numbers.
        """
        if self._known[name]:
            return [_with_unit(one, one.unit or "", has_value) for one in self._known[name]]
        base, behind = _parted(name)
        targets = self._known[base] if behind else ()
        return [_with_unit(one, behind, has_value) for one in targets] or None

    def texts(self, name: str) -> dict[str, str]:
        """Return what the tables say the targets of a source's code are called."""
        found = self._known[name] or self._known[_parted(name)[0]]
        return {target.code: target.text for target in found if target.text}

    def learn(self, names: Iterable[str]) -> None:
        """Look codes up in the tables, all that are new at once."""
        wanted = {one for name in names for one in (name, _parted(name)[0])} - self._known.keys()
        if not wanted:
            return
        rows = self._rows_of(sorted(wanted))
        self._known |= dict.fromkeys(wanted, ())
        for name, own in groupby(rows, key=itemgetter(0)):
            self._known[name] = _targets([row[1:] for row in own])

    def _rows_of(self, names: list[str]) -> list[tuple[Any, ...]]:
        """Return (name, 0 where it is meant as it is written, list, code, unit, text), by name."""
        parts = [name.partition(SEPARATOR) for name in names]
        behind = [rest if rest and d not in VOCABULARIES else None for d, _, rest in parts]
        keys = pa.table({"name": names, "behind": pa.array(behind, pa.string())})
        self._connection.register("wanted", keys)
        local = f"(vocabulary IS NULL OR vocabulary NOT IN {tuple(sorted(VOCABULARIES))})"
        ways = (
            ("0", "m.vocabulary || '//' || m.source = w.name"),
            ("0", f"m.source = w.name AND {local}"),
            ("1", f"m.source = w.behind AND {local}"),
        )
        said = " UNION ".join(
            f"SELECT w.name, {rank}, vocabulary, m.code, unit, description "
            f"FROM wanted w JOIN mapping m ON {way}"
            for rank, way in ways
        )
        found = self._connection.execute(f"{said} ORDER BY ALL").fetchall()
        self._connection.unregister("wanted")
        return found

    def _read(self, path: Path) -> None:
        if not path.exists():
            raise IngestError(301, where=path.name, seen="there is no such file or folder")
        if path.is_dir():
            self._read_vocabulary(path)
            return
        check_gzip(path)
        file = TableFile(path)
        columns = set(file.columns)
        if {"source_code", "target_concept_id"} <= columns:
            self._read_concept_map(file)
        elif {"sourcecode", "conceptid", "mappingstatus"} <= columns:
            self._read_usagi(file)
        elif {"source_code", "code"} <= columns:
            self._read_codes(file)
        else:
            raise IngestError(
                307,
                where=path.name,
                seen="it has the columns of no mapping that is known",
                wanted=f"columns are wanted: {_WANTED}",
                do="Name them so, or export the mapping again",
            )

    def _read_codes(self, file: TableFile) -> None:
        vocabulary = _text(file, "source_vocabulary_id")
        written = (
            f"{_text(file, 'code')}, NULL, {_text(file, 'unit')}, {_text(file, 'description')}"
        )
        accepted = f"lower({_text(file, 'accept')}) IN {_ACCEPTED}"
        only = accepted if "accept" in file.columns else "TRUE"
        self._add(file, f"{vocabulary}, {_text(file, 'source_code')}, {written}", only)
        bare = self._connection.execute(
            "SELECT count(*) FROM mapping WHERE concept IS NULL AND NOT contains(code, '//')"
        ).fetchall()
        if bare[0][0]:
            raise IngestError(
                308,
                where=file.path.name,
                seen=f'{bare[0][0]} rows of column "code" have no vocabulary',
                wanted="VOCABULARY//CODE is wanted, such as LOINC//2345-7",
                do="Correct the table",
            )

    def _read_concept_map(self, file: TableFile) -> None:
        said = f"{_text(file, 'source_vocabulary_id')}, {_text(file, 'source_code')}"
        concept = file.cast("target_concept_id", "BIGINT")
        valid = f"coalesce({_text(file, 'invalid_reason')}, '') = ''"
        self._add(file, f"{said}, NULL, {concept}, NULL, NULL", valid)

    def _read_usagi(self, file: TableFile) -> None:
        concept = file.cast("conceptid", "BIGINT")
        said = f"{_text(file, 'sourcecode')}, NULL, {concept}, NULL, {_text(file, 'conceptname')}"
        approved = f"upper({_text(file, 'mappingstatus')}) = '{_APPROVED}'"
        self._add(file, f"NULL, {said}", approved)

    def _add(self, file: TableFile, columns: str, where: str = "TRUE") -> None:
        """Add rows that have a source and a target."""
        names = "vocabulary, source, code, concept, unit, description"
        said = f"SELECT {columns} FROM {file.source()} WHERE {where}"
        found = f"SELECT * FROM ({said}) AS r({names})"
        whole = "source <> '' AND (code <> '' OR coalesce(concept, 0) <> 0)"
        self._execute(f"INSERT INTO mapping {found} WHERE {whole}", file.path)

    def _read_vocabulary(self, folder: Path) -> None:
        """Take "Maps to" from a folder, and its SOURCE_TO_CONCEPT_MAP where there is one."""
        maps, steps, concepts = (
            [TableFile(path, quotes=False) for path in files_of(folder, name)]
            for name in ("source_to_concept_map", "concept_relationship", "concept")
        )
        if not (concepts and (steps or maps)):
            seen = "there is no CONCEPT with CONCEPT_RELATIONSHIP or SOURCE_TO_CONCEPT_MAP"
            raise unreadable(folder, seen)
        for file in maps:
            want_columns(file, ["source_code", "target_concept_id"])
            self._read_concept_map(file)
        for file in steps:
            want_columns(file, ["concept_id_1", "concept_id_2", "relationship_id"])
            start, end = (file.cast(f"concept_id_{n}", "BIGINT") for n in (1, 2))
            valid = f"coalesce({_text(file, 'invalid_reason')}, '') = '' AND {start} <> {end}"
            chosen = f"{_text(file, 'relationship_id')} = '{_MAPS_TO}' AND {valid}"
            found = f"SELECT {start} AS child, {end} AS parent FROM {file.source()} WHERE {chosen}"
            for of in concepts:
                own = f"JOIN ({_concepts_of(of)}) c ON c.concept_id = r.child"
                said = "SELECT c.vocabulary, c.code, NULL, r.parent, NULL, NULL"
                sql = f"{said} FROM ({found}) r {own}"
                self._execute(f"INSERT INTO mapping {sql}", file.path)

    def _name_concepts(self, files: Iterable[Path]) -> None:
        """Give the targets that are concepts their codes.

        Raises:
            IngestError: HF-301 where no CONCEPT table has one of them.
        """
        for path in files:
            if not self._nameless():
                return
            table = TableFile(path, quotes=False)
            want_columns(table, ["concept_id", "vocabulary_id", "concept_code"])
            named = "SELECT concept_id, vocabulary || '//' || code AS name "
            named += f"FROM ({_concepts_of(table)})"
            update = f"UPDATE mapping SET code = c.name FROM ({named}) c"
            self._execute(f"{update} WHERE mapping.code IS NULL AND concept = c.concept_id", path)
        left = self._nameless()
        if left:
            raise IngestError(
                301,
                where="the mapping",
                seen=f"{left} of its target concepts are in no CONCEPT table",
                wanted="a CONCEPT table with all of them is wanted",
                do="Give --map the folder of vocabulary tables too, as Athena gives them",
            )

    def _nameless(self) -> int:
        count = "SELECT count(DISTINCT concept) FROM mapping WHERE code IS NULL"
        return int(self._connection.execute(count).fetchall()[0][0])

    def _execute(self, sql: str, path: Path) -> None:
        try:
            self._connection.execute(sql)
        except (duckdb.Error, UnicodeDecodeError, OSError) as error:
            raise unreadable(path, "it is cut off, damaged or not in UTF-8") from error
        lines = self._reader.malformed().num_rows
        if lines:
            raise unreadable(path, f"{lines:,} of its lines are no rows")


def _text(file: TableFile, column: str) -> str:
    return f"trim({file.cast(column, 'VARCHAR')})"


def _concepts_of(file: TableFile) -> str:
    """Return the concepts of a table that have a code, as SQL."""
    number = file.cast("concept_id", "BIGINT")
    vocabulary, code = _text(file, "vocabulary_id"), _text(file, "concept_code")
    columns = f"{number} AS concept_id, {vocabulary} AS vocabulary, {code} AS code"
    return f"SELECT {columns} FROM {file.source()} WHERE {code} <> ''"


def _parted(name: str) -> tuple[str, str]:
    """Return a code without its unit or answer, and that."""
    parts = name.split(SEPARATOR)
    return SEPARATOR.join(parts[:2]), SEPARATOR.join(parts[2:])


def _targets(rows: Sequence[tuple[Any, ...]]) -> tuple[Target, ...]:
    """Return the targets of one code: as it is written, or else of what stands behind its domain.

    Two lists that have it, and say different things of it, are none: nobody says which is meant.
    """
    rows = [row[1:] for row in rows if row[0] == rows[0][0]]
    by_list = {of: {row[1:3] for row in own} for of, own in groupby(rows, key=itemgetter(0))}
    if len({frozenset(own) for own in by_list.values()}) > 1:
        return ()
    meant = {row[1:3]: row[3] for row in rows}
    return tuple(
        Target(shared_spelling(tidy(code)), unit, text and tidy(text))
        for (code, unit), text in meant.items()
    )


def _with_unit(target: Target, behind: str, has_value: bool) -> CodeAndUnit:
    """Return a target with the unit or the answer that stood behind the source's code."""
    if not has_value:
        return CodeAndUnit(joined(target.code, "" if behind == target.unit else behind))
    found = _LIMIT.fullmatch(behind)
    limit, unit = (found["limit"] or "", found["unit"]) if found else ("", behind)
    test, its = canonical_lab(target.code, unit or target.unit)
    return CodeAndUnit(joined(test, limit + its.name), its.factor, its.offset)
