"""Standard codes suggested for a store's own ones, by what both are called; a person decides.

A code of a site's own is held against the names of a vocabulary's standard concepts: the cosine of
their words, each weighted by how rare it is among the concepts (TF-IDF, Salton and Buckley 1988).
Nothing is applied: the suggestions are a table with an empty column ``accept``, of which
``ingest --map`` takes the rows that a person said yes to.
"""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

from healthfm_client.ingest.codes.code_mapping import VOCABULARIES
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    files_of,
    unreadable,
    want_columns,
)
from healthfm_client.site_store.current_events import view_current_events
from healthfm_core.data.store.store_files import CODES_FILE

_WORDS: Final = "list_distinct(regexp_extract_all(lower({}), '[a-z0-9]+'))"
_MATCHES: Final = """
WITH texts AS (SELECT code, name, rows, unnest({of_text}) AS word FROM own),
names AS (SELECT concept, unnest({of_name}) AS word FROM concepts),
weights AS (
    SELECT word, ln(1 + (SELECT count(*) FROM concepts) / count(*)) AS weight
    FROM names GROUP BY word
),
lengths AS (
    SELECT concept, sqrt(sum(weight * weight)) AS length
    FROM names JOIN weights USING (word) GROUP BY concept
),
own_lengths AS (
    SELECT code, sqrt(sum(pow(coalesce(weight, (SELECT max(weight) FROM weights)), 2))) AS length
    FROM texts LEFT JOIN weights USING (word) GROUP BY code
),
shared AS (
    SELECT code, concept, sum(weight * weight) AS product
    FROM texts JOIN names USING (word) JOIN weights USING (word) GROUP BY code, concept
)
SELECT own.code, own.name, concepts.concept, concepts.name,
    round(product / (own_lengths.length * lengths.length), 2) AS score, own.rows
FROM shared JOIN lengths USING (concept) JOIN own_lengths USING (code)
    JOIN own USING (code) JOIN concepts USING (concept)
WHERE product / (own_lengths.length * lengths.length) >= {least}
QUALIFY row_number() OVER (PARTITION BY own.code ORDER BY score DESC, concepts.concept) <= {most}
ORDER BY own.rows DESC, own.code, score DESC, concepts.concept
"""


@dataclass(frozen=True)
class Suggestion:
    """A standard concept that is called much like a code of the site's own.

    Attributes:
        source_code: The site's, without a unit.
        source_name: What the site calls it.
        code: The concept, as ``LOINC//2345-7``.
        description: What the vocabulary calls it.
        score: Cosine of the names' words; 1 where they are the same.
        rows: Events of the store under the site's code.
    """

    source_code: str
    source_name: str
    code: str
    description: str
    score: float
    rows: int


def suggest_codes(
    store: Path, vocabulary: Path, *, most: int = 3, least: float = 0.5
) -> list[Suggestion]:
    """Return concepts for codes that are of no shared vocabulary, the most frequent code first.

    Args:
        store: A store's folder.
        vocabulary: A folder with CONCEPT, as from Athena.
        most: Concepts for one code.
        least: Score from which on a concept is suggested, 0 to 1.

    Raises:
        IngestError: HF-303, HF-307.
    """
    reader = DuckDBReader()
    files = files_of(vocabulary, "concept") if vocabulary.is_dir() else []
    if not files:
        raise unreadable(vocabulary, "there is no CONCEPT in it")
    reader.connection.execute("CREATE TEMP TABLE concepts (concept VARCHAR, name VARCHAR)")
    for path in files:
        _add_concepts(reader, path)
    known = tuple(sorted(VOCABULARIES))
    _add_own(reader, store, known)
    sql = _MATCHES.format(
        of_text=_WORDS.format("name"), of_name=_WORDS.format("name"), least=least, most=most
    )
    return [Suggestion(*row) for row in reader.connection.execute(sql).fetchall()]


def as_map(suggestions: list[Suggestion]) -> str:
    """Return the CSV that ``ingest --map`` takes, with an empty column ``accept`` in front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["accept", *(field.name for field in fields(Suggestion))])
    writer.writerows(["", *astuple(one)] for one in suggestions)
    return out.getvalue()


def _add_concepts(reader: DuckDBReader, path: Path) -> None:
    table = TableFile(path, quotes=False)
    want_columns(table, ["vocabulary_id", "concept_code", "concept_name", "standard_concept"])
    vocabulary, code, name, standard = (
        f"trim({table.cast(column, 'VARCHAR')})"
        for column in ("vocabulary_id", "concept_code", "concept_name", "standard_concept")
    )
    chosen = f"SELECT {vocabulary} || '//' || {code} AS concept, {name} AS name"
    which = f"WHERE {standard} = 'S' AND {code} <> ''"
    rows = reader.table(f"{chosen} FROM {table.source()} {which}", path)
    reader.connection.register("found", rows)
    reader.connection.execute("INSERT INTO concepts SELECT DISTINCT concept, name FROM found")
    reader.connection.unregister("found")


def _add_own(reader: DuckDBReader, store: Path, known: tuple[str, ...]) -> None:
    """Take the codes of the store that are of no shared vocabulary, and what they are called."""
    base = "array_to_string(string_split(code, '//')[1:2], '//')"
    behind = "string_split(code, '//')"
    sql = (
        f"CREATE TEMP TABLE own AS WITH held AS ("
        f"SELECT {base} AS code, count(*) AS rows FROM events "
        f"WHERE contains(code, '//') AND {behind}[1] NOT IN {known} GROUP BY 1), "
        f"told AS (SELECT {base} AS code, min(description) AS text FROM read_parquet(?) "
        f"WHERE description <> '' GROUP BY 1) "
        f"SELECT held.code, coalesce(text, string_split(held.code, '//')[2]) AS name, rows "
        f"FROM held LEFT JOIN told USING (code)"
    )
    view_current_events(reader.connection, store)
    reader.connection.execute(sql, [str(store / CODES_FILE)])
