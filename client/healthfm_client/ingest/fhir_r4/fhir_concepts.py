"""What FHIR's concepts and quantities are called in a store: ``VOCABULARY//CODE``, and texts."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from healthfm_client.ingest.codes.distinct_codes import joined, tidy
from healthfm_client.ingest.codes.molar_units import canonical_lab
from healthfm_client.ingest.fhir_r4.fhir_types import (
    STANDARD,
    UCUM,
    VALUES_NOT_READ,
    VOCABULARIES,
    Coding,
    Component,
    Concept,
    Quantity,
    Resource,
    Valued,
)

LIMITS: Final = ("<", "<=", ">=", ">")
"""Comparators of a quantity: the number is a limit of what was measured."""
_WRITTEN: Final = re.compile(r"(?P<limit>[<>]=?)?\s*(?P<number>[+-]?[0-9]{1,15}(\.[0-9]{1,15})?)")


def code_of(concept: Concept | None) -> str | None:
    """Return ``VOCABULARY//CODE`` of the best coding, which their order does not tell.

    A coding of a system that is standard in OMOP comes before one of another known system (ICD of
    a billing department beside SNOMED), and that before any.
    """
    if concept is None:
        return None
    best = _best(concept)
    if best is None:
        return joined("TEXT", tidy(concept.text)) if concept.text else None
    return _named(best.system or "", best.code or "")


def text_of(concept: Concept | None) -> str:
    """Return what a code of a known system is called, '' where nobody says."""
    best = None if concept is None else _best(concept)
    known = best is not None and best.system in VOCABULARIES
    return tidy(best.display) if best is not None and known and best.display else ""


def unit_text(quantity: Quantity) -> str | None:
    """Return a quantity's unit: its code, unless that is of another system than UCUM."""
    coded = quantity.code if quantity.system in (None, "", UCUM) else None
    return coded or quantity.unit or quantity.code


def answered(code: str, one: Valued) -> tuple[str, float | None]:
    """Return (code with its unit or answer behind it, number)."""
    quantity = one.valueQuantity
    if quantity is not None and quantity.value is not None:
        limit = quantity.comparator if quantity.comparator in LIMITS else ""
        named, factor, offset = measured(code, unit_text(quantity), limit or "")
        return named, quantity.value * factor + offset
    if one.valueCodeableConcept is not None:
        answer = code_of(one.valueCodeableConcept)
        return joined(code, (answer or "").replace("//", ":")), None
    if one.valueInteger is not None:
        return code, float(one.valueInteger) if abs(one.valueInteger) < 2**63 else float("inf")
    if one.valueBoolean is not None:
        return joined(code, "true" if one.valueBoolean else "false"), None
    written = _WRITTEN.fullmatch((one.valueString or "").strip())
    if written is not None:
        return joined(code, written["limit"] or ""), float(written["number"])
    return code, None


def value_not_read(one: Valued) -> str:
    """Return the kind of value that there is and that `answered` does not read, '' for none."""
    text = (one.valueString or "").strip()
    if text and one.valueQuantity is None and _WRITTEN.fullmatch(text) is None:
        return "valueString"
    return next((kind for kind in VALUES_NOT_READ if bytes(getattr(one, kind))), "")


@lru_cache(1 << 16)
def measured(code: str, unit: str | None, limit: str = "") -> tuple[str, float, float]:
    """Return the code with its unit behind it, and the factor and offset of its numbers.

    A `limit`, ``<`` of "less than 5", stands before the unit: 5 is not what was measured.
    """
    test, its = canonical_lab(code, unit)
    return joined(test, limit + its.name), its.factor, its.offset


def called(code: str, named: str, one: Resource | Component) -> dict[str, str]:
    """Return what an observation's code means, and with its answer where that is a code too.

    Args:
        code: Of the observation.
        named: As `answered` gives it.
        one: The observation, or its component.
    """
    if not named.startswith(code):  # the code of another measure of the same
        return {}
    text, answer = text_of(one.code), text_of(one.valueCodeableConcept)
    return {code: text} | {named: f"{text}: {answer}" if text and answer else text}


def _best(concept: Concept) -> Coding | None:
    """Return the first coding of a standard system, else of a known one, else the first."""
    known = first = None
    for coding in concept.coding:
        if coding.code:
            if coding.system in STANDARD:
                return coding
            if known is None and coding.system in VOCABULARIES:
                known = coding
            first = first or coding
    return known or first


@lru_cache(1 << 18)
def _named(system: str, code: str) -> str:
    vocabulary = VOCABULARIES.get(system) or re.split(r"[/:]", system.rstrip("/"))[-1] or "FHIR"
    return joined(tidy(vocabulary), tidy(code))
