"""What a row of OMOP's says beside its concept, as SQL: its number, and what is not read of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from healthfm_client.ingest.tables.duckdb_reader import TableFile

_LIMITS: Final = {4171756: "<", 4171754: "<=", 4171755: ">=", 4172704: ">"}
"""Standard concept of ``operator_concept_id`` → how a limit is written behind a code."""
_WRITTEN: Final = r"^\s*([<>]=?)?\s*([+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*$"
"""A number written as text, perhaps as a limit."""


def measured(file: TableFile) -> dict[str, str]:
    """Return a measurement's number and comparator as SQL; numbers may be written as text.

    A number that is a limit, by its operator or as it is written, is not what was measured.
    """
    number, text = file.cast("value_as_number", "DOUBLE"), file.cast("value_as_string", "VARCHAR")
    operator = file.cast("operator_concept_id", "BIGINT")
    limits = " ".join(f"WHEN {concept} THEN '{sign}'" for concept, sign in _LIMITS.items())
    limit, written = (
        f"CASE WHEN {number} IS NULL THEN regexp_extract({text}, '{_WRITTEN}', {n}) END"
        for n in (1, 2)
    )
    if "value_as_string" not in file.columns:
        return {"value": number, "comparator": f"CASE {operator} {limits} END"}
    return {
        "value": f"coalesce({number}, TRY_CAST({written} AS DOUBLE))",
        "comparator": f"coalesce(CASE {operator} {limits} END, nullif({limit}, ''))",
    }


def beside_it(file: TableFile, values: bool, others: Sequence[str]) -> dict[str, str]:
    """Return what a row says that is not read: column → whether it does, as SQL.

    Args:
        file: The table.
        values: Whether its rows have a number, a unit and an answer.
        others: Columns of other tables that are not read.
    """
    if not values:
        here = [name for name in others if name in file.columns]
        return {name: f"{file.column(name)} IS NOT NULL" for name in here}
    value = measured(file)["value"]
    answer = f"coalesce({file.cast('value_as_concept_id', 'BIGINT')}, 0)"
    text = f"nullif(trim({file.cast('value_as_string', 'VARCHAR')}), '')"
    return {
        "value_as_string": f"{text} IS NOT NULL AND {value} IS NULL AND {answer} = 0",
        "value_as_concept_id": f"{value} IS NOT NULL AND {answer} <> 0",
    }


def bits(conditions: Iterable[str]) -> str:
    """Return which of some conditions hold, as SQL: the first is 1, the second 2, …"""
    each = (f"CASE WHEN {one} THEN {1 << bit} ELSE 0 END" for bit, one in enumerate(conditions))
    return f"({' + '.join(each) or '0'})"
