"""What is measured of a made person, and how each form of the truth writes it.

A row says what a store is to hold, ``LOINC//2345-7`` in mg/dL, and for each form the code, the unit
as hospitals write it, and what the number is times and plus to be in that unit. The numbers come
from chemistry and from UCUM's definitions, not from the readers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Written:
    """How a form writes a measurement: the number is value · `times` + `plus` in `unit`."""

    loinc: str
    unit: str
    times: float = 1.0
    plus: float = 0.0


@dataclass(frozen=True)
class Measurement:
    """A test or a vital sign.

    Attributes:
        loinc: The code in a store.
        unit: The unit in a store.
        usual: Its mean in people who are well, in `unit`.
        spread: Its standard deviation over visits.
        loads: What a unit of the person's three burdens (metabolic, vascular, inflammatory) adds.
        forms: How OMOP, FHIR and MEDS write it, in that order.
    """

    loinc: str
    unit: str
    usual: float
    spread: float
    loads: tuple[float, float, float]
    forms: tuple[Written, Written, Written]


def _one(
    loinc: str,
    unit: str,
    usual: float,
    spread: float,
    loads: tuple[float, float, float],
    *forms: tuple[str, str, float] | tuple[str, str, float, float],
) -> Measurement:
    omop, fhir, meds = (Written(*form) for form in forms)
    return Measurement(loinc, unit, usual, spread, loads, (omop, fhir, meds))


MEASUREMENTS = (
    _one(
        *("2345-7", "mg/dL", 95.0, 9.0, (22.0, 0.0, 3.0)),
        ("2345-7", "mg/dL", 1.0),
        ("14749-6", "mmol/L", 10 / 180.156),
        ("2345-7", "g/L", 0.01),
    ),
    _one(
        *("4548-4", "%", 5.4, 0.25, (0.8, 0.0, 0.0)),
        ("4548-4", "%", 1.0),
        ("59261-8", "mmol/mol", 1 / 0.09148, -2.152 / 0.09148),
        ("4548-4", "percent", 1.0),
    ),
    _one(
        *("2160-0", "mg/dL", 0.9, 0.1, (0.0, 0.25, 0.0)),
        ("2160-0", "MG/DL", 1.0),
        ("14682-9", "umol/L", 1e4 / 113.12),
        ("2160-0", "mg/L", 10.0),
    ),
    _one(
        *("2951-2", "mmol/L", 140.0, 2.0, (0.0, -0.6, 0.0)),
        ("2951-2", "mEq/L", 1.0),
        ("2951-2", "mmol/L", 1.0),
        ("2951-2", "MMOL/L", 1.0),
    ),
    _one(
        *("2823-3", "mmol/L", 4.2, 0.25, (0.0, 0.15, 0.0)),
        ("2823-3", "MEQ/L", 1.0),
        ("2823-3", "mmol/L", 1.0),
        ("2823-3", "umol/mL", 1.0),
    ),
    _one(
        *("17861-6", "mg/dL", 9.4, 0.3, (0.0, -0.1, 0.0)),
        ("17861-6", "mEq/L", 2 * 10 / 40.078),
        ("2000-8", "mmol/L", 10 / 40.078),
        ("17861-6", "mg/dL", 1.0),
    ),
    _one(
        *("19123-9", "mg/dL", 2.0, 0.15, (-0.05, 0.0, 0.0)),
        ("19123-9", "mg/dL", 1.0),
        ("2601-3", "mmol/L", 10 / 24.305),
        ("19123-9", "mEq/L", 2 * 10 / 24.305),
    ),
    _one(
        *("2089-1", "mg/dL", 115.0, 18.0, (12.0, 6.0, 0.0)),
        ("2089-1", "mg/dL", 1.0),
        ("22748-8", "mmol/L", 10 / 386.65),
        ("2089-1", "mg/L", 10.0),
    ),
    _one(
        *("2571-8", "mg/dL", 120.0, 30.0, (35.0, 0.0, 0.0)),
        ("2571-8", "mg/dL", 1.0),
        ("14927-8", "mmol/L", 10 / 885.43),
        ("2571-8", "mg%", 1.0),
    ),
    _one(
        *("718-7", "mg/dL", 14_000.0, 700.0, (0.0, -500.0, -500.0)),
        ("718-7", "g/dL", 1e-3),
        ("59260-0", "mmol/L", 10 / 16114.5),
        ("718-7", "g/L", 1e-2),
    ),
    _one(
        *("777-3", "10*9/L", 250.0, 35.0, (0.0, 0.0, 30.0)),
        ("777-3", "K/cumm", 1.0),
        ("777-3", "10*9/L", 1.0),
        ("777-3", "G/L", 1.0),
    ),
    _one(
        *("6690-2", "10*9/L", 6.8, 1.1, (0.0, 0.0, 1.6)),
        ("6690-2", "thou/cmm", 1.0),
        ("6690-2", "10*3/uL", 1.0),
        ("6690-2", "cells/uL", 1000.0),
    ),
    _one(
        *("3016-3", "U/L", 0.0021, 0.0007, (0.0003, 0.0, 0.0)),
        ("3016-3", "uIU/mL", 1000.0),
        ("3016-3", "m[IU]/L", 1000.0),
        ("3016-3", "mIU/L", 1000.0),
    ),
    _one(
        *("1742-6", "U/L", 24.0, 6.0, (5.0, 0.0, 3.0)),
        ("1742-6", "IU/L", 1.0),
        ("1742-6", "ukat/L", 1 / 60),
        ("1742-6", "U/L", 1.0),
    ),
    _one(
        *("1988-5", "mg/dL", 0.3, 0.15, (0.05, 0.1, 0.6)),
        ("1988-5", "mg/L", 10.0),
        ("1988-5", "mg/L", 10.0),
        ("1988-5", "mg/dL", 1.0),
    ),
    _one(
        *("1975-2", "mg/dL", 0.7, 0.15, (0.0, 0.05, 0.0)),
        ("1975-2", "mg/dL", 1.0),
        ("14631-6", "umol/L", 1e4 / 584.66),
        ("1975-2", "mg/dl", 1.0),
    ),
    _one(
        *("3084-1", "mg/dL", 5.4, 0.8, (0.6, 0.4, 0.0)),
        ("3084-1", "mg/dL", 1.0),
        ("14933-6", "umol/L", 1e4 / 168.11),
        ("3084-1", "mg/dL", 1.0),
    ),
    _one(
        *("33914-3", "mL/min", 88.0, 6.0, (0.0, -16.0, 0.0)),
        ("33914-3", "ml/min/1.73m2", 1.0),
        ("33914-3", "mL/min/{1.73_m2}", 1.0),
        ("33914-3", "mL/min", 1.0),
    ),
    _one(
        *("4537-7", "mm/h", 12.0, 4.0, (0.0, 0.0, 9.0)),
        ("4537-7", "mm/hr", 1.0),
        ("4537-7", "mm/h", 1.0),
        ("4537-7", "MM/HR", 1.0),
    ),
    _one(
        *("1989-3", "mg/dL", 0.0028, 0.0007, (-0.0004, 0.0, 0.0)),
        ("1989-3", "ng/mL", 1e4),
        ("14635-7", "nmol/L", 1e7 / 400.64),
        ("1989-3", "ug/L", 1e4),
    ),
    _one(
        *("10839-9", "mg/dL", 1e-6, 2e-7, (0.0, 6e-7, 0.0)),
        ("10839-9", "ng/mL", 1e4),
        ("10839-9", "ng/L", 1e7),
        ("10839-9", "pg/mL", 1e7),
    ),
    _one(
        *("8480-6", "mm[Hg]", 124.0, 7.0, (4.0, 11.0, 0.0)),
        ("8480-6", "mmHg", 1.0),
        ("8480-6", "mm[Hg]", 1.0),
        ("8480-6", "mm Hg", 1.0),
    ),
    _one(
        *("8462-4", "mm[Hg]", 78.0, 5.0, (2.0, 5.0, 0.0)),
        ("8462-4", "mmHg", 1.0),
        ("8462-4", "mm[Hg]", 1.0),
        ("8462-4", "mm Hg", 1.0),
    ),
    _one(
        *("8867-4", "1/min", 72.0, 6.0, (0.0, 3.0, 4.0)),
        ("8867-4", "bpm", 1.0),
        ("8867-4", "/min", 1.0),
        ("8867-4", "beats/min", 1.0),
    ),
    _one(
        *("8310-5", "Cel", 36.7, 0.25, (0.0, 0.0, 0.4)),
        ("8310-5", "Deg.F", 1.8, 32.0),
        ("8310-5", "Cel", 1.0),
        ("8310-5", "[degF]", 1.8, 32.0),
    ),
    _one(
        *("29463-7", "kg", 78.0, 6.0, (9.0, 0.0, 0.0)),
        ("29463-7", "lbs", 1 / 0.45359237),
        ("29463-7", "kg", 1.0),
        ("29463-7", "Kg", 1.0),
    ),
    _one(
        *("59408-5", "%", 97.5, 0.8, (0.0, -0.3, -0.9)),
        ("59408-5", "%", 1.0),
        ("59408-5", "%", 1.0),
        ("59408-5", "percent", 1.0),
    ),
)
"""Three ways to write each; BLOOD_PRESSURE is one panel in FHIR."""
BLOOD_PRESSURE = ("8480-6", "8462-4")
LIMITED = {"1988-5": 0.1}
"""LOINC code → the least that the assay tells, in the store's unit; below it "<" is written."""
