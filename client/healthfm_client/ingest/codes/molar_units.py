"""Masses and amounts of substance of one laboratory test brought to one code and unit.

LOINC has a code for the mass of what was measured ([Mass/volume]) and one for its amount
([Moles/volume]), and sites map results of both kinds to either. Where the molar mass is known for
certain, all meet under the mass's code, in mg/dL; elsewhere they stay two codes, which `describe`
lists.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from healthfm_client.ingest.codes.units import Unit, canonical

MASS: Final = "mg/dL"
AMOUNT: Final = "mmol/L"
_LOINC: Final = "LOINC//"

G_PER_MOL_OF_MASS: Final = {
    **dict.fromkeys(("2345-7", "2339-0", "1558-6", "41653-7"), 180.156),  # glucose
    **dict.fromkeys(("2093-3", "2085-9", "13457-7", "18262-6", "2089-1"), 386.65),  # cholesterol
    **dict.fromkeys(("2160-0", "38483-4"), 113.12),  # creatinine
    **dict.fromkeys(("3094-0", "6299-2"), 28.014),  # urea nitrogen: two of N in a mole of urea
    **dict.fromkeys(("1975-2", "1968-7"), 584.66),  # bilirubin
    "17861-6": 40.078,  # calcium
    "19123-9": 24.305,  # magnesium
    "2777-1": 30.974,  # phosphate, as phosphorus
    "3084-1": 168.11,  # urate
    "2498-4": 55.845,  # iron
    "2571-8": 885.43,  # triglyceride, as triolein
}
"""LOINC code of a mass in a volume → g/mol of what is measured."""
OF_AMOUNT: Final = {
    "15074-8": "2339-0",  # glucose, in blood
    "14749-6": "2345-7",
    "14647-2": "2093-3",
    "14646-4": "2085-9",
    "22748-8": "2089-1",
    "14682-9": "2160-0",
    "14631-6": "1975-2",
    "2000-8": "17861-6",
    "2601-3": "19123-9",
    "14879-1": "2777-1",
    "14933-6": "3084-1",
    "14798-3": "2498-4",
    "14927-8": "2571-8",
}
"""LOINC code of an amount in a volume → that of the mass: same component and system, in the order
above. Urea is left out, since a mass of it may be of urea or of its nitrogen."""


@lru_cache(1 << 14)
def canonical_lab(code: str, text: str | None) -> tuple[str, Unit]:
    """Return the code that a value is put under, without a unit, and what to do with the value.

    Args:
        code: ``LOINC//14749-6``, without a unit.
        text: The unit, as the source writes it.
    """
    mass = OF_AMOUNT.get(code.removeprefix(_LOINC)) if code.startswith(_LOINC) else None
    if mass is not None:
        unit = unit_of(_LOINC + mass, text)
        if unit.name == MASS:
            return _LOINC + mass, unit
    return code, unit_of(code, text)


@lru_cache(1 << 14)
def unit_of(code: str, text: str | None) -> Unit:
    """Return what to do with values of a code in a unit.

    Args:
        code: ``LOINC//2345-7``, without a unit.
        text: The unit, as the source writes it.
    """
    unit = canonical(text)
    test = code.removeprefix(_LOINC) if code.startswith(_LOINC) else ""
    if unit.name == AMOUNT and test in G_PER_MOL_OF_MASS:
        by = G_PER_MOL_OF_MASS[test] / 10
        return Unit(MASS, float(f"{unit.factor * by:.12g}"), float(f"{unit.offset * by:.12g}"))
    return unit
