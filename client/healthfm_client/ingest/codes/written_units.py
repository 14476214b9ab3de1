"""Codes and numbers of a source in MEDS's form brought to the store's codes and units.

MEDS leaves open how a code bears its vocabulary and its unit. ``LOINC//2345-7//mmol/L`` and
``LOINC/2345-7`` with ``mmol/L`` in a column ``unit``, as ETLs from OMOP have written it, are one
test, and the same as that of a site whose CDM has it in mg/dL. A unit within a code is read where
the code means the same at every site; a site's own codes stay as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.codes.distinct_codes import (
    SEPARATOR,
    CodeAndUnit,
    DistinctRows,
    converted,
    joined,
)
from healthfm_client.ingest.codes.molar_units import canonical_lab
from healthfm_core.data.store.schemas import CODES

UNIT: Final = "unit"
"""The column that has a number's unit, where a code does not bear it."""
_SHARED: Final = frozenset({"LOINC", "SNOMED", "OMOP"})
"""Vocabularies of tests that mean the same at every site."""
_ONE_STROKE: Final = re.compile(
    r"(LOINC|SNOMED|RxNorm|RxNorm Extension|OMOP Extension|ICD10CM|ICD10|ICD9CM|ICD10PCS|ICD9Proc"
    r"|CPT4|HCPCS|CVX|NDC|ATC|UCUM|Gender|Race|Ethnicity|Visit)/(?!/)"
)
_LONGEST: Final = 40
"""What is longer is a text, and no unit."""
_LIMITS: Final = ("<=", ">=", "<", ">")


def respelt_code(code: str) -> str:
    """Return ``VOCABULARY//CODE`` of a code of OMOP's vocabularies that has one stroke."""
    match = _ONE_STROKE.match(code)
    return code if match is None else f"{match[1]}{SEPARATOR}{code[match.end() :]}"


@lru_cache(1 << 16)
def in_store_unit(code: str, unit: str | None, has_value: bool) -> CodeAndUnit:
    """Return what a row is called in a store, and how its number comes to the store's unit.

    Args:
        code: As the source has it.
        unit: From a column beside it.
        has_value: Whether the row has a number; without one nothing behind the code is a unit.
    """
    code = respelt_code(code)
    vocabulary, _, rest = code.partition(SEPARATOR)
    test, _, said = rest.partition(SEPARATOR)
    if not has_value or not test or not (said or unit):
        return CodeAndUnit(code)
    if said and (vocabulary not in _SHARED or SEPARATOR in said or len(said) > _LONGEST):
        return CodeAndUnit(code)
    limit = next((sign for sign in _LIMITS if said.startswith(sign)), "")
    named, its = canonical_lab(joined(vocabulary, test), said.removeprefix(limit) or unit)
    return CodeAndUnit(joined(named, limit + its.name), its.factor, its.offset)


@lru_cache(1 << 16)
def _is_a_stores(code: str) -> bool:
    return all(in_store_unit(code, None, has) == CodeAndUnit(code) for has in (True, False))


def in_store_units(
    events: pa.Table, unit: pa.ChunkedArray | None = None
) -> tuple[pa.Table, dict[str, list[str]]]:
    """Return events under the store's codes, in its units, and each code that changed → its new.

    Args:
        events: MEDS columns; codes may be a dictionary.
        unit: [N] texts, the unit of each row's number.
    """
    beside = unit is not None and unit.null_count < len(unit)
    if not beside and all(_is_a_stores(name) for name in distinct_names(events["code"])):
        return events, {}
    number = events["numeric_value"]
    unit = pa.chunked_array([pa.nulls(len(number), pa.string())]) if unit is None else unit
    distinct = DistinctRows.of(events["code"], unit, number.is_valid())
    named = [in_store_unit(code or "", text, has) for code, text, has in distinct.values]
    changed: dict[str, list[str]] = {}
    for (code, _, _), new in zip(distinct.values, named, strict=True):
        if new != CodeAndUnit(code or ""):
            changed.setdefault(code, []).append(new.code or "")
    if not changed:
        return events, changed
    rows = distinct.coded(named)
    value = np.asarray(pc.fill_null(number, 0.0).to_numpy(), np.float64)
    absent = np.asarray(pc.is_null(number).to_numpy(), np.bool_)
    inside = pa.array(converted(value, rows.factor, rows.offset), mask=absent)
    at = events.column_names.index
    code = rows.code if pa.types.is_dictionary(events["code"].type) else rows.code.cast(pa.string())
    events = events.set_column(at("code"), "code", code)
    return events.set_column(at("numeric_value"), "numeric_value", inside), changed


def distinct_names(column: pa.ChunkedArray) -> set[str]:
    """Return the distinct texts of a column, and those that its dictionaries have beside them."""
    coded = pa.types.is_dictionary(column.type)
    distinct = [chunk.dictionary for chunk in column.chunks] if coded else [column.unique()]
    return {name for names in distinct for name in names.to_pylist() if name}


def described_as(codes: pa.Table, changed: dict[str, list[str]]) -> pa.Table:
    """Return what a source says of codes, under what they became.

    A code that got or changed its unit has the one without it above it, as those of other readers.

    Args:
        codes: MEDS's table of codes.
        changed: See `in_store_units`.
    """
    said: dict[str, tuple[str | None, list[str] | None]] = {}
    for row in codes.to_pylist():
        above = row["parent_codes"]
        parents = None if above is None else [respelt_code(code) for code in above]
        for code in changed.get(row["code"], [respelt_code(row["code"])]):
            said.setdefault(code, (row["description"], parents))
    for code in sorted({code for new in changed.values() for code in new}):
        bare = SEPARATOR.join(code.split(SEPARATOR)[:2])
        text, parents = said.get(code, (None, None))
        if code != bare:
            said[code] = (text, parents or [bare])
            said.setdefault(bare, (text, None))
    columns = [list(said), [text for text, _ in said.values()], [up for _, up in said.values()]]
    return pa.table(columns, schema=CODES)
