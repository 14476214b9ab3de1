"""Numbers of one laboratory test brought to one code and unit, by what the test measures.

LOINC has a code for the mass of what was measured ([Mass/volume]) and one for its amount
([Moles/volume]), and sites map results of both kinds to either. Where the molar mass is known for
certain, all meet under the mass's code, in mg/dL; elsewhere they stay two codes, which `describe`
lists. An amount of charge (mEq/L) is an amount of substance where the valence is known, else it
keeps its unit. HbA1c in mmol/mol (IFCC) is brought to per cent (NGSP).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from healthfm_client.ingest.codes.units import (
    AMOUNT_OF_CHARGE,
    MOLE_FRACTION,
    Unit,
    canonical,
)

MASS: Final = "mg/dL"
AMOUNT: Final = "mmol/L"
_LOINC: Final = "LOINC//"

G_PER_MOL: Final = {
    **dict.fromkeys(("2345-7", "2339-0", "1558-6", "41653-7"), 180.156),  # glucose
    **dict.fromkeys(("2093-3", "2085-9", "13457-7", "18262-6", "2089-1"), 386.65),  # cholesterol
    "43396-1": 386.65,  # not HDL
    **dict.fromkeys(("2160-0", "38483-4", "2161-8"), 113.12),  # creatinine
    **dict.fromkeys(("3094-0", "6299-2"), 28.014),  # urea nitrogen: two of N in a mole of urea
    **dict.fromkeys(("1975-2", "1968-7"), 584.66),  # bilirubin
    "17861-6": 40.078,  # calcium
    "19123-9": 24.305,  # magnesium
    "2777-1": 30.974,  # phosphate, as phosphorus
    "3084-1": 168.11,  # urate
    **dict.fromkeys(("2498-4", "2500-7"), 55.845),  # iron, and what binds it
    "2571-8": 885.43,  # triglyceride, as triolein
    "718-7": 16114.5,  # haemoglobin, one chain with its haem
    **dict.fromkeys(("786-4", "28540-3"), 16114.5),  # haemoglobin of erythrocytes (MCHC)
    "14118-4": 90.08,  # lactate
    "2132-9": 1355.4,  # cobalamin
    "2284-8": 441.4,  # folate
    "1989-3": 400.64,  # 25-hydroxyvitamin D3
    **dict.fromkeys(("3026-2", "3024-7"), 776.87),  # thyroxine
    **dict.fromkeys(("3053-6", "3051-0"), 650.97),  # triiodothyronine
    "2143-6": 362.46,  # cortisol
    "2986-8": 288.42,  # testosterone
    "2243-4": 272.38,  # oestradiol
    "2839-9": 314.46,  # progesterone
}
"""LOINC code of a mass in a volume → g/mol of what is measured."""
OF_AMOUNT: Final = {
    "15074-8": "2339-0",  # glucose, in blood
    "14749-6": "2345-7",
    "14771-0": "1558-6",
    "14647-2": "2093-3",
    "14646-4": "2085-9",
    "22748-8": "2089-1",
    "39469-2": "13457-7",
    "70204-3": "43396-1",
    "14682-9": "2160-0",
    "14683-7": "2161-8",
    "14631-6": "1975-2",
    "14629-0": "1968-7",
    "2000-8": "17861-6",
    "2601-3": "19123-9",
    "14879-1": "2777-1",
    "14933-6": "3084-1",
    "14798-3": "2498-4",
    "14800-7": "2500-7",
    "14927-8": "2571-8",
    "59260-0": "718-7",
    "2524-7": "14118-4",
    "14685-2": "2132-9",
    "14732-6": "2284-8",
    "14635-7": "1989-3",
    "14921-1": "3026-2",
    "14920-3": "3024-7",
    "14930-2": "3053-6",
    "14928-6": "3051-0",
    "14675-3": "2143-6",
    "14913-8": "2986-8",
    "14715-1": "2243-4",
    "14890-8": "2839-9",
}
"""LOINC code of an amount in a volume → that of the mass: same component and system. Urea is left
out, since a mass of it may be of urea or of its nitrogen."""
VALENCE: Final = {
    **dict.fromkeys(("2951-2", "2947-0", "2955-3"), 1),  # sodium
    **dict.fromkeys(("2823-3", "6298-4", "2828-2"), 1),  # potassium
    **dict.fromkeys(("2075-0", "2069-3", "2078-4"), 1),  # chloride
    **dict.fromkeys(("1963-8", "1959-6", "1960-4", "2028-9"), 1),  # bicarbonate, carbon dioxide
    **dict.fromkeys(("33037-3", "1863-0", "10466-1"), 1),  # anion gap
    **dict.fromkeys(("11555-0", "1925-7", "1927-3"), 1),  # base excess
    "14334-7": 1,  # lithium
    **dict.fromkeys(("17861-6", "2000-8", "1994-3", "1995-0"), 2),  # calcium
    **dict.fromkeys(("19123-9", "2601-3"), 2),  # magnesium
}
"""LOINC code → charges of an ion of what is measured, by which mEq become mmol. Of phosphate it
depends on the pH."""
HBA1C: Final = "LOINC//4548-4"
HBA1C_IFCC: Final = "LOINC//59261-8"
GLYCATED: Final = frozenset(
    {
        *(HBA1C, HBA1C_IFCC, "LOINC//17856-6", "LOINC//41995-2"),
        *("SNOMED//43396009", "SNOMED//1003671000000109", "SNOMED//999791000000106"),
        *("SNOMED//1049301000000100", "SNOMED//1049321000000109"),
    }
)
"""Codes of HbA1c: LOINC's, and SNOMED's with those of the United Kingdom."""
NGSP_OF_IFCC: Final = (0.09148, 2.152)
"""HbA1c in per cent is 0.09148 of it in mmol/mol, and 2.152 (the master equation of the NGSP and
IFCC networks, https://ngsp.org/ifcc.asp)."""
_IN_GRAMS: Final = frozenset({*G_PER_MOL, "1751-7", "2885-2", "10834-0"})
"""Tests that are masses, whatever the case of their ``G/L``: those above, albumin, protein and
globulin too."""
_PG_PER_FMOL: Final = 16.1145
_MCH: Final = frozenset({"785-6", "28539-5"})


@lru_cache(1 << 14)
def canonical_lab(code: str, text: str | None) -> tuple[str, Unit]:
    """Return the code that a value is put under, without a unit, and what to do with the value.

    Args:
        code: ``LOINC//14749-6``, without a unit.
        text: The unit, as the source writes it.
    """
    test = code.removeprefix(_LOINC) if code.startswith(_LOINC) else ""
    if test in OF_AMOUNT:
        of_mass = _LOINC + OF_AMOUNT[test]
        unit = _in_mass(OF_AMOUNT[test], unit_of(code, text))
        if unit.name == MASS:
            return of_mass, unit
    unit = unit_of(code, text)
    return (HBA1C if code == HBA1C_IFCC and unit.offset else code), unit


@lru_cache(1 << 14)
def unit_of(code: str, text: str | None) -> Unit:
    """Return what to do with values of a code in a unit.

    Args:
        code: ``LOINC//2345-7``, without a unit.
        text: The unit, as the source writes it.
    """
    test = code.removeprefix(_LOINC) if code.startswith(_LOINC) else ""
    text = (text or "").strip()
    unit = canonical(text.lower() if text.upper() == "G/L" and test in _IN_GRAMS else text)
    if unit.name == MOLE_FRACTION and code in GLYCATED:
        slope, at_zero = NGSP_OF_IFCC
        return Unit("%", _exact(unit.factor * slope), at_zero)
    if unit.name in AMOUNT_OF_CHARGE and test in VALENCE:
        unit = replace(unit, name=AMOUNT_OF_CHARGE[unit.name])
        unit = _times(unit, 1 / VALENCE[test])
    if unit.name == "mmol" and test in _MCH:
        return replace(_times(unit, 1e12 * _PG_PER_FMOL), name="pg")
    return _in_mass(test, unit)


def _in_mass(test: str, unit: Unit) -> Unit:
    if unit.name != AMOUNT or test not in G_PER_MOL:
        return unit
    return replace(_times(unit, G_PER_MOL[test] / 10), name=MASS)


def _times(unit: Unit, by: float) -> Unit:
    return Unit(unit.name, _exact(unit.factor * by), _exact(unit.offset * by))


def _exact(number: float) -> float:
    return float(f"{number:.12g}")
