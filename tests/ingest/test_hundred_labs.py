"""The hundred commonest laboratory tests and vital signs, in every spelling met for their unit.

Spellings are those of MIMIC-III and -IV (``K/uL``, ``mEq/L``, ``insp/min``, ``Deg. F``), eICU
(``K/mcL``, ``mm Hg``), Synthea (UCUM), exports of hospitals in the United Kingdom (``10*9/L``,
``umol/L``, ``mmol/mol``) and on the continent (``G/L``, ``T/l``), and of systems that write capital
letters alone. Each row is one quantity: whatever it is written in, it comes to
one code, one unit and one number.
"""

from __future__ import annotations

import pytest

from healthfm_client.ingest.codes.molar_units import canonical_lab

Spellings = dict[str, float]


def mass(per_dl: float) -> Spellings:
    """A concentration of mass, given in mg/dL, in all that is written for it."""
    gram, micro = per_dl / 1000, per_dl * 1000
    return {
        **dict.fromkeys(("mg/dL", "mg/dl", "MG/DL", "Mg/Dl", "mg%", "mg/100 mL", "mgs/dL"), per_dl),
        **dict.fromkeys(("mg/L", "MG/L", "mg/l", "ug/mL", "mcg/mL", "UG/ML", "µg/ml"), per_dl * 10),
        **dict.fromkeys(("g/dL", "G/DL", "gm/dL", "GM/DL", "g/dl", "g%", "g/100mL"), gram),
        **dict.fromkeys(("g/L", "g/l", "gm/L", "grams/L"), gram * 10),
        **dict.fromkeys(("ug/dL", "mcg/dL", "UG/DL", "μg/dL"), micro),
        **dict.fromkeys(("ng/mL", "NG/ML", "ug/L", "mcg/L", "µg/l"), micro * 10),
        **dict.fromkeys(("ng/dL", "NG/DL"), micro * 1000),
        **dict.fromkeys(("pg/mL", "PG/ML", "ng/L", "ng/l"), micro * 10_000),
    }


def amount(mmol_per_l: float) -> Spellings:
    """A concentration of substance."""
    return {
        **dict.fromkeys(("mmol/L", "mmol/l", "MMOL/L", "Mmol/L", "mM"), mmol_per_l),
        **dict.fromkeys(("umol/L", "UMOL/L", "µmol/l", "mcmol/L", "uM"), mmol_per_l * 1e3),
        **dict.fromkeys(("nmol/L", "NMOL/L", "nmol/l"), mmol_per_l * 1e6),
        **dict.fromkeys(("pmol/L", "PMOL/L"), mmol_per_l * 1e9),
    }


def charge(meq_per_l: float) -> Spellings:
    return dict.fromkeys(("mEq/L", "meq/L", "MEQ/L", "mEq/l", "meq/l"), meq_per_l)


def ion(mmol_per_l: float, valence: int = 1) -> Spellings:
    return {**amount(mmol_per_l), **charge(mmol_per_l * valence)}


def either(per_dl: float, g_per_mol: float) -> Spellings:
    return {**mass(per_dl), **amount(per_dl * 10 / g_per_mol)}


def enzyme(per_l: float) -> Spellings:
    many = ("U/L", "u/L", "IU/L", "IU/l", "[IU]/L", "[iU]/L", "units/L", "Units/L", "U/l", "iu/l")
    return {
        **dict.fromkeys(many, per_l),
        **dict.fromkeys(("mIU/mL", "mU/mL", "m[IU]/mL", "MIU/ML"), per_l),
        **dict.fromkeys(
            ("mIU/L", "mU/L", "MIU/L", "uIU/mL", "uU/mL", "UIU/ML", "µIU/mL"), per_l * 1e3
        ),
        **dict.fromkeys(("mcIU/mL", "u[IU]/mL", "m[IU]/L"), per_l * 1e3),
        **dict.fromkeys(("kU/L", "U/mL", "IU/mL", "units/mL"), per_l / 1e3),
    }


def count(giga_per_l: float) -> Spellings:
    """A number of cells in a volume."""
    nine = (
        "10*9/L",
        "10^9/L",
        "x10^9/L",
        "x 10^9/L",
        "10E9/L",
        "x10e9/L",
        "10(9)/L",
        "10**9/L",
        "G/L",
        "G/l",
    )
    three = (
        *(
            "10*3/uL",
            "10^3/uL",
            "x10E3/uL",
            "x10^3/uL",
            "10(3)/mcL",
            "K/uL",
            "K/UL",
            "k/ul",
            "K/mcL",
        ),
        *("K/cumm", "K/mm3", "K/cmm", "thou/cmm", "thou/uL", "Thousand/uL", "THOU/UL", "10*3/mm3"),
        *("10^3 cells/uL", "thous/mcL"),
    )
    six = (
        "M/uL",
        "m/ul",
        "M/mcL",
        "Million/uL",
        "mil/mcL",
        "10*6/uL",
        "x10E6/uL",
        "10^6/uL",
        "mill/mm3",
    )
    one = (
        "cells/uL",
        "/uL",
        "#/uL",
        "cells/mcL",
        "/cumm",
        "/mm3",
        "cells/cumm",
        "CELLS/UL",
        "cells/mm^3",
    )
    return {
        **dict.fromkeys((*nine, *three), giga_per_l),
        **dict.fromkeys((*six, "10*12/L", "x10^12/L", "T/L", "T/l"), giga_per_l / 1e3),
        **dict.fromkeys(one, giga_per_l * 1e3),
    }


def percent(of_hundred: float) -> Spellings:
    return {
        **dict.fromkeys(("%", "percent", "PERCENT", "Percent", "%{total}"), of_hundred),
        **dict.fromkeys(("L/L", "l/l"), of_hundred / 100),
    }


def seconds(s: float) -> Spellings:
    return dict.fromkeys(("s", "sec", "SEC", "secs", "seconds", "Seconds"), s)


def rate(per_min: float) -> Spellings:
    many = ("/min", "1/min", "bpm", "BPM", "beats/min", "beats/minute", "breaths/min", "insp/min")
    return dict.fromkeys((*many, "resp/min", "per minute", "{beats}/min", "br/min"), per_min)


def pressure(mm: float) -> Spellings:
    many = ("mm[Hg]", "mmHg", "mmhg", "MMHG", "mm Hg", "mm HG", "mm(hg)")
    return {**dict.fromkeys(many, mm), **dict.fromkeys(("kPa", "kpa", "KPA"), mm / 7.50061575846)}


def clearance(ml_per_min: float) -> Spellings:
    many = (
        "mL/min/{1.73_m2}",
        "ml/min/1.73m2",
        "mL/min/1.73 m2",
        "mL/min/1.73m^2",
        "ML/MIN/1.73M2",
    )
    more = (
        "mL/min/1.73 m²",
        "mL/min/1.73sq.m",
        "mL/min/1.73",
        "mL/min",
        "ml/min",
        "mL/min per 1.73 m2",
    )
    return dict.fromkeys((*many, *more), ml_per_min)


def nothing() -> Spellings:
    many = ("", "ratio", "Ratio", "N/A", "unitless", "{INR}", "INR", "pH", "[pH]", "pH units")
    return dict.fromkeys(many, 1.0)


OSMOLALITY = dict.fromkeys(
    ("mosm/kg", "mOsm/kg", "MOSM/KG", "mosmol/kg", "mOsmol/kg", "mmol/kg"), 290.0
)
SETTLING = dict.fromkeys(("mm/h", "mm/hr", "MM/HR", "mm/1hr", "mm/hour", "mm/1h", "mm/Hr"), 20.0)
HEAT = {
    **dict.fromkeys(("Cel", "C", "°C", "degC", "deg C", "DEG C", "Deg. C", "Celsius"), 37.0),
    **dict.fromkeys(
        ("[degF]", "F", "°F", "° F", "degF", "Deg.F", "Deg. F", "DEG F", "Fahrenheit"), 98.6
    ),
}
WEIGHT = {
    **dict.fromkeys(("kg", "Kg", "KG", "kgs", "kilograms"), 70.0),
    **dict.fromkeys(("g", "G", "grams"), 70_000.0),
    **dict.fromkeys(("[lb_av]", "lb", "lbs", "LBS", "pounds"), 154.323584),
}
HEIGHT = {
    **dict.fromkeys(("cm", "CM"), 175.0),
    **dict.fromkeys(("m",), 1.75),
    **dict.fromkeys(("[in_i]", "in", "inches", "Inches", "INCH"), 68.8976378),
}
BODY_MASS = dict.fromkeys(("kg/m2", "kg/m^2", "kg/m²", "KG/M2"), 25.0)
VOLUME_OF_CELL = dict.fromkeys(("fL", "fl", "FL", "um3", "femtoliter"), 90.0)
MASS_OF_CELL = {**dict.fromkeys(("pg", "PG", "Pg"), 30.0), "fmol": 30.0 / 16.1145}
GLYCATED = {
    **dict.fromkeys(("%", "percent", "%{Hb}"), 6.543),
    **dict.fromkeys(("mmol/mol", "MMOL/MOL", "mmol/mol{Hb}"), 48.0),
}
DIMER = dict.fromkeys(("ng/mL FEU", "ng/mL{FEU}", "ug/L FEU", "NG/ML FEU", "ng/mL (FEU)"), 500.0)
URINE = {**dict.fromkeys(("mL/h", "ml/hr", "mL/hr", "cc/hr", "ML/HR"), 60.0), "mL/min": 1.0}

LABS: dict[str, Spellings] = {
    # masses and amounts that meet
    "2345-7": either(90.0, 180.156),
    "2339-0": either(90.0, 180.156),
    "1558-6": either(90.0, 180.156),
    "41653-7": either(90.0, 180.156),
    "14749-6": either(90.0, 180.156),
    "2093-3": either(200.0, 386.65),
    "2085-9": either(50.0, 386.65),
    "13457-7": either(120.0, 386.65),
    "18262-6": either(120.0, 386.65),
    "2089-1": either(120.0, 386.65),
    "43396-1": either(150.0, 386.65),
    "2571-8": either(150.0, 885.43),
    "2160-0": either(1.0, 113.12),
    "38483-4": either(1.0, 113.12),
    "2161-8": either(100.0, 113.12),
    "14682-9": either(1.0, 113.12),
    "3094-0": either(14.0, 28.014),
    "6299-2": either(14.0, 28.014),
    "1975-2": either(0.8, 584.66),
    "1968-7": either(0.2, 584.66),
    "3084-1": either(5.0, 168.11),
    "2777-1": either(3.5, 30.974),
    "2498-4": either(0.1, 55.845),
    "2500-7": either(0.3, 55.845),
    "17861-6": {**either(9.6, 40.078), **charge(96.0 / 40.078 * 2)},
    "2000-8": {**either(9.6, 40.078), **charge(96.0 / 40.078 * 2)},
    "19123-9": {**either(2.0, 24.305), **charge(20.0 / 24.305 * 2)},
    "2601-3": {**either(2.0, 24.305), **charge(20.0 / 24.305 * 2)},
    "718-7": either(14_500.0, 16114.5),
    "59260-0": either(14_500.0, 16114.5),
    "786-4": either(33_000.0, 16114.5),
    "2524-7": either(9.0, 90.08),
    "2132-9": either(5e-5, 1355.4),
    "2284-8": either(1e-3, 441.4),
    "1989-3": either(3e-3, 400.64),
    "3024-7": either(1.2e-3, 776.87),
    "3026-2": either(8e-3, 776.87),
    "3051-0": either(3e-4, 650.97),
    "3053-6": either(0.12e-3, 650.97),
    "2143-6": either(1e-2, 362.46),
    "2986-8": either(0.5, 288.42),
    "2243-4": either(5e-3, 272.38),
    "2839-9": either(1e-3, 314.46),
    # masses
    "1751-7": mass(4_200.0),
    "2885-2": mass(7_000.0),
    "10834-0": mass(2_800.0),
    "1988-5": mass(0.5),
    "30522-7": mass(0.1),
    "2276-4": mass(1e-2),
    "2857-1": mass(1e-4),
    "6598-7": mass(1e-6),
    "10839-9": mass(1e-6),
    "49563-0": mass(1e-6),
    "33762-6": mass(3e-5),
    "30934-4": mass(1e-5),
    "33959-8": mass(1e-5),
    "3255-7": mass(300.0),
    "3034-6": mass(250.0),
    "2039-6": mass(3e-4),
    "1834-1": mass(3e-4),
    "10535-3": mass(1e-4),
    "20578-1": mass(1.5),
    # ions
    "2951-2": ion(140.0),
    "2947-0": ion(140.0),
    "2823-3": ion(4.1),
    "6298-4": ion(4.1),
    "2075-0": ion(102.0),
    "2069-3": ion(102.0),
    "1963-8": ion(24.0),
    "1959-6": ion(24.0),
    "2028-9": ion(25.0),
    "33037-3": ion(12.0),
    "1995-0": ion(1.2, valence=2),
    "11555-0": ion(1.0),
    # enzymes and hormones in units
    "1742-6": enzyme(25.0),
    "1920-8": enzyme(25.0),
    "6768-6": enzyme(80.0),
    "2324-2": enzyme(30.0),
    "3040-3": enzyme(40.0),
    "1798-8": enzyme(60.0),
    "2157-6": enzyme(100.0),
    "14804-9": enzyme(180.0),
    "3016-3": enzyme(0.0025),
    "15067-2": enzyme(6.0),
    "10501-5": enzyme(5.0),
    # blood counts
    "6690-2": count(7.0),
    "26464-8": count(7.0),
    "789-8": count(4800.0),
    "777-3": count(250.0),
    "751-8": count(4.0),
    "731-0": count(2.0),
    "742-7": count(0.5),
    "711-2": count(0.2),
    "704-7": count(0.05),
    "4544-3": percent(42.0),
    "20570-8": percent(42.0),
    "788-0": percent(13.5),
    "770-8": percent(60.0),
    "736-9": percent(30.0),
    "787-2": VOLUME_OF_CELL,
    "32623-1": VOLUME_OF_CELL,
    "785-6": MASS_OF_CELL,
    "4537-7": SETTLING,
    "4548-4": GLYCATED,
    "17856-6": GLYCATED,
    # clotting, gases, the rest
    "5902-2": seconds(12.0),
    "3173-2": seconds(30.0),
    "6301-6": nothing(),
    "2744-1": nothing(),
    "48065-7": DIMER,
    "2019-8": pressure(40.0),
    "2703-7": pressure(90.0),
    "2708-6": percent(97.0),
    "2692-2": OSMOLALITY,
    "48642-3": clearance(80.0),
    "62238-1": clearance(80.0),
    # vital signs and measures of the body
    "8867-4": rate(72.0),
    "9279-1": rate(16.0),
    "8480-6": pressure(120.0),
    "8462-4": pressure(80.0),
    "8310-5": HEAT,
    "59408-5": percent(97.0),
    "29463-7": WEIGHT,
    "8302-2": HEIGHT,
    "39156-5": BODY_MASS,
    "9187-6": URINE,
}
"""LOINC code → spelling of its unit → the same quantity in it."""


def test_there_are_a_hundred_of_them():
    assert len(LABS) >= 100


@pytest.mark.parametrize("code", LABS)
def test_a_lab_is_one_number_whatever_its_unit_is_written_like(code):
    found = {}
    for spelling, value in LABS[code].items():
        name, unit = canonical_lab(f"LOINC//{code}", spelling)
        found[spelling] = (name, unit.name, value * unit.factor + unit.offset)
    (first, *_) = found.values()
    apart = {
        spelling: seen
        for spelling, seen in found.items()
        if seen[:2] != first[:2] or seen[2] != pytest.approx(first[2], rel=1e-3, abs=1e-15)
    }
    assert apart == {}, first


def test_codes_of_an_amount_are_the_masss():
    for amount_code, mass_code in (
        ("14749-6", "2345-7"),
        ("59260-0", "718-7"),
        ("2601-3", "19123-9"),
    ):
        assert canonical_lab(f"LOINC//{amount_code}", "mmol/L")[0] == f"LOINC//{mass_code}"


def test_fibrinogen_units_are_not_taken_for_dimers():
    fibrinogen, dimer = (canonical_lab("LOINC//48065-7", f"ng/mL {u}")[1] for u in ("FEU", "DDU"))
    assert fibrinogen.name != dimer.name
    assert canonical_lab("LOINC//48065-7", "ng/mL")[1].name not in (fibrinogen.name, dimer.name)
