"""What the OMOP vocabulary tables say of concepts: codes, descriptions and what is above them.

The tables are optional. Without CONCEPT, or without a concept_code in it, a concept is
``OMOP//<concept_id>``, which meets no code of a site that has it. From Athena they come
tab-separated, whatever their suffix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.codes.distinct_codes import SEPARATOR, tidy
from healthfm_client.ingest.codes.shared_spellings import CONCEPTS
from healthfm_client.ingest.tables.databases import DatabaseTables
from healthfm_client.ingest.tables.duckdb_reader import FolderTables, want_columns
from healthfm_core.arrays import Int64
from healthfm_core.data.store.schemas import CODES


class Concepts:
    """The concepts of a CDM.

    Args:
        tables: Where ``concept``, ``concept_ancestor`` and ``concept_relationship`` lie.

    Attributes:
        malformed: Table → lines that are no rows, of all that was read so far.

    Raises:
        IngestError: HF-303, HF-307.
    """

    def __init__(self, tables: FolderTables | DatabaseTables) -> None:
        self._tables = tables
        self.malformed: dict[str, int] = {}
        table = self._read("concept", ("concept_id", "vocabulary_id", "concept_code"))
        order = np.argsort(_numbers(table, "concept_id"), kind="stable")
        self._ids = _numbers(table, "concept_id")[order]
        vocabulary, code = (table[n].fill_null("") for n in ("vocabulary_id", "concept_code"))
        named = pc.binary_join_element_wise(vocabulary, code, SEPARATOR)
        by_id = pc.binary_join_element_wise(
            "OMOP", table["concept_id"].cast(pa.string()), SEPARATOR
        )
        nameless = pc.equal(pc.utf8_trim_whitespace(code), "")
        self._names = pc.if_else(nameless, by_id, named).take(pa.array(order)).combine_chunks()

    def __len__(self) -> int:
        return len(self._ids)

    def code(self, concept_id: int) -> str:
        """Return ``VOCABULARY//CODE``, or ``OMOP//<concept_id>`` where it is not known."""
        if concept_id in CONCEPTS:
            return CONCEPTS[concept_id]
        at = int(np.searchsorted(self._ids, concept_id))
        known = at < len(self._ids) and self._ids[at] == concept_id
        return tidy(self._names[at].as_py()) if known else f"OMOP{SEPARATOR}{concept_id}"

    def described(self, names: Sequence[str]) -> pa.Table:
        """Return MEDS's table of codes: description and parents of `names` and of all above them.

        A code that has a unit or an answer behind it has the code without it as its parent.
        """
        parents = {name: [base] for name in names if (base := bare(name)) != name}
        wanted = sorted({bare(name) for name in names})
        found = pc.index_in(self._names, pa.array(wanted, pa.string())).is_valid()
        ids = self._ids[np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)]
        above = self._above(ids)
        known = np.unique(np.concatenate([ids, *above]))
        for child, parent in zip(*above, strict=True):
            parents.setdefault(self.code(int(child)), []).append(self.code(int(parent)))
        table = self._read("concept", ("concept_id", "concept_name"))
        rows = table.filter(pc.is_in(table["concept_id"], pa.array(known)))
        pairs = zip(_numbers(rows, "concept_id"), rows["concept_name"].to_pylist(), strict=True)
        described = {self.code(int(at)): tidy(name) for at, name in pairs if name}
        codes = sorted({*names, *described, *(p for of in parents.values() for p in of)})
        return pa.table(
            {
                "code": pa.array(codes, pa.string()),
                "description": pa.array([described.get(code) for code in codes], pa.string()),
                "parent_codes": pa.array(
                    [sorted(set(parents[c])) if c in parents else None for c in codes],
                    pa.list_(pa.string()),
                ),
            },
            schema=CODES,
        )

    def _above(self, ids: Int64) -> tuple[Int64, Int64]:
        """Return (child, parent) of every step from `ids` upwards."""
        child, parent = self._edges()
        steps: tuple[list[Int64], list[Int64]] = ([], [])
        seen, new = ids, ids
        while len(new):
            rows = np.isin(child, new)
            steps[0].append(child[rows])
            steps[1].append(parent[rows])
            new = np.setdiff1d(parent[rows], seen)
            seen = np.union1d(seen, new)
        empty = np.zeros(0, np.int64)
        return np.concatenate([*steps[0], empty]), np.concatenate([*steps[1], empty])

    def _edges(self) -> tuple[Int64, Int64]:
        nearest = "TRY_CAST({min_levels_of_separation} AS INTEGER) = 1"
        columns = ("descendant_concept_id", "ancestor_concept_id", "min_levels_of_separation")
        table = self._read("concept_ancestor", columns, nearest)
        if not table.num_rows:
            columns = ("concept_id_1", "concept_id_2", "relationship_id")
            table = self._read("concept_relationship", columns, "{relationship_id} = 'Is a'")
        child, parent = (_numbers(table, name) for name in columns[:2])
        known = np.isin(child, self._ids) & np.isin(parent, self._ids) & (child != parent)
        return child[known], parent[known]

    def _read(self, table: str, columns: Sequence[str], where: str = "TRUE") -> pa.Table:
        """Return columns of all files of a table, ids as integers; rows without one left out."""
        tables = []
        ids = [
            name
            for name in columns
            if "concept_id" in name and name.endswith(("_id", "_id_1", "_id_2"))
        ]
        for file in self._tables.of(table, quotes=False):
            want_columns(file, columns)
            casts = (f"{file.cast(n, 'BIGINT' if n in ids else 'VARCHAR')} AS {n}" for n in columns)
            chosen = ", ".join(casts)
            condition = where.format(**{name: file.column(name) for name in columns})
            some = f"SELECT {chosen} FROM {file.source()} WHERE {condition}"
            sql, reader = f"SELECT * FROM ({some}) WHERE {columns[0]} IS NOT NULL", file.reader()
            tables.append(reader.table(sql, file.path))
            self.malformed[table] = self.malformed.get(table, 0) + reader.malformed().num_rows
        kinds = pa.schema([(n, pa.int64() if n in ids else pa.string()) for n in columns])
        tables = [t.cast(kinds) for t in tables if t.num_rows]
        return pa.concat_tables(tables) if tables else kinds.empty_table()


def bare(name: str) -> str:
    """Return a code without its unit or answer: its first two parts."""
    return SEPARATOR.join(name.split(SEPARATOR)[:2])


def _numbers(table: pa.Table, name: str) -> Int64:
    return np.asarray(table[name].fill_null(0).to_numpy(), np.int64)
