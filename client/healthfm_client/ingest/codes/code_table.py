"""What is above a code, from a file of the site's: for sources that do not come with a vocabulary.

MEDS's metadata/codes.parquet (code, description, parent_codes), or a table with a row per step up
(code, parent, description where there is one), as CSV or Parquet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.codes.omop_vocabulary import bare
from healthfm_client.ingest.reader_interface import Site
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    check_gzip,
    unreadable,
    want_columns,
)
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_core.data.store.schemas import CODES, conform
from healthfm_core.data.store.store_files import CODES_FILE
from healthfm_core.errors import IngestError

CodeTable = dict[str, tuple[str | None, frozenset[str]]]
"""Code → its description and the codes right above it."""


def read_codes(path: Path) -> CodeTable:
    """Return what a file says of codes.

    Raises:
        IngestError: HF-303, HF-306, HF-307; HF-308 where a code is above itself.
    """
    if not path.is_file():
        raise unreadable(path, "there is no such file")
    check_gzip(path)
    table = TableFile(path)
    listed = "parent_codes" in table.columns
    want_columns(table, ["code", "parent_codes" if listed else "parent"])
    above = table.column("parent_codes") if listed else f"[{table.column('parent')}]"
    chosen = f"CAST({table.column('code')} AS VARCHAR) AS code, CAST({above} AS VARCHAR[]) AS above"
    text = f"CAST({table.column('description')} AS VARCHAR) AS description"
    rows = DuckDBReader().table(f"SELECT {chosen}, {text} FROM {table.source()}", path)
    refuse_empty(rows, path.name)
    known: CodeTable = {}
    for row in rows.to_pylist():
        if row["code"]:
            before, parents = known.get(row["code"], (None, frozenset()))
            more = frozenset(parent for parent in row["above"] or () if parent)
            known[row["code"]] = (before or row["description"], parents | more)
    _refuse_circles(known, path)
    return known


def _refuse_circles(known: CodeTable, path: Path) -> None:
    done: set[str] = set()
    for start in known:
        trail: list[tuple[str, Iterable[str]]] = [(start, iter(known[start][1]))]
        on_trail = {start}
        while trail:
            code, rest = trail[-1]
            step = next((p for p in rest if p in known and p not in done), None)
            if step is None:
                done.add(code)
                on_trail.discard(code)
                trail.pop()
            elif step in on_trail:
                raise IngestError(
                    308,
                    where=path.name,
                    seen="a code is above itself",
                    wanted="steps that lead up and come to an end are wanted",
                    do="Correct the table",
                )
            else:
                trail.append((step, iter(known[step][1])))
                on_trail.add(step)


def describe_codes(
    site: Site, names: Sequence[str], texts: Mapping[str, str], known: CodeTable | None
) -> pa.Table:
    """Return MEDS's table of what the source, its texts and the site's own file say of codes.

    Args:
        site: What its reader says of codes.
        names: The codes that occur in its store.
        texts: What the stream calls codes; used where nobody else says what one is.
        known: What the site's own file says.
    """
    fixed = CODES.empty_table() if site.codes is None else conform(site.codes, CODES, CODES_FILE)
    describe = None if site.stream is None else site.stream.codes
    if describe is None and known is None:
        if not texts:
            return fixed
        known = {code: (text, frozenset()) for code, text in texts.items()}
    own = CODES.empty_table() if describe is None else describe(names)
    if known is not None:
        merged = _merged(known, names, _known(fixed) | _known(own))
        return merged if site.stream is None else _with_texts(merged, texts)
    return pa.concat_tables([fixed, _with_texts(own, texts)])


def _with_texts(codes: pa.Table, texts: Mapping[str, str]) -> pa.Table:
    own = pa.array([texts.get(code) for code in codes["code"].to_pylist()], pa.string())
    at = codes.column_names.index("description")
    return codes.set_column(at, "description", pc.coalesce(codes["description"], own))


def _known(table: pa.Table) -> CodeTable:
    columns = (table[name].to_pylist() for name in CODES.names)
    return {
        code: (text, frozenset(above or ())) for code, text, above in zip(*columns, strict=True)
    }


def _merged(known: CodeTable, names: Sequence[str], own: CodeTable) -> pa.Table:
    """Return MEDS's table of both; a code with a unit is below the one without."""
    units = {n: frozenset((bare(n),)) for n in names if bare(n) != n and bare(n) in known}
    parents = (above for said in (known, own) for _, above in said.values())
    codes = sorted({*known, *own, *units}.union(*parents))
    nothing: tuple[str | None, frozenset[str]] = (None, frozenset())
    texts, above = [], []
    for code in codes:
        (text, its), (other, more) = own.get(code, nothing), known.get(code, nothing)
        texts.append(text or other)
        above.append(sorted(its | more | units.get(code, frozenset())) or None)
    columns = {"code": codes, "description": texts, "parent_codes": above}
    return pa.table(columns, schema=CODES)
