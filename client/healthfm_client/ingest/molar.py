"""Masses and amounts of substance of one laboratory test brought to the unit of its code.

LOINC says of a test whether its result is a mass or an amount ([Mass/volume], [Moles/volume]), but
sites map both to either. Where the molar mass of what was measured is known for certain, its number
is converted to what the code says; elsewhere the two stay two codes, which `describe` lists.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from healthfm_client.ingest.units import Unit, canonical

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
G_PER_MOL_OF_AMOUNT: Final = {
    "15074-8": 180.156,
    "14647-2": 386.65,
    "14646-4": 386.65,
    "22748-8": 386.65,
    "14682-9": 113.12,
    "14631-6": 584.66,
    "2000-8": 40.078,
    "2601-3": 24.305,
    "14879-1": 30.974,
    "14933-6": 168.11,
    "14798-3": 55.845,
    "14927-8": 885.43,
}
"""LOINC code of an amount in a volume → g/mol, in the order above; urea is left out, since a mass
of it may be of urea or of its nitrogen."""


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
        return _scaled(unit, MASS, G_PER_MOL_OF_MASS[test] / 10)
    if unit.name == MASS and test in G_PER_MOL_OF_AMOUNT:
        return _scaled(unit, AMOUNT, 10 / G_PER_MOL_OF_AMOUNT[test])
    return unit


def _scaled(unit: Unit, name: str, by: float) -> Unit:
    return Unit(name, float(f"{unit.factor * by:.12g}"), float(f"{unit.offset * by:.12g}"))
