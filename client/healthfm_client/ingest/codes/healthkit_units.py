"""HealthKit's names of units, which are not UCUM's, as its `HKUnit` defines them.

A percentage is a fraction there (.97 is 97 %), ``Cal`` is a kilocalorie and ``st`` a stone; glucose
is in moles of a stated molar mass, ``mmol<180.1558800000541>/L``, and so becomes a mass.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Final

from healthfm_client.ingest.codes.units import Unit, canonical

_AS_THEY_ARE: Final = {
    "S": Unit("S"),
    "mcS": Unit("uS"),
    "deg": Unit("deg"),
    "rad": Unit("rad"),
    "D": Unit("[diop]"),
    "inHg": Unit("mm[Hg]", 25.4),
    **dict.fromkeys(("mL/min·kg", "mL/kg·min", "mL/kg*min"), Unit("mL/min/kg")),
}
"""What UCUM's table would name otherwise, or get wrong."""
_UCUM: Final = {
    "Cal": "kcal",
    "st": "[stone_av]",
    "fl_oz_us": "[foz_us]",
    "fl_oz_imp": "[foz_br]",
    "cup_us": "[cup_us]",
    "pt_us": "[pt_us]",
    "cmAq": "cm[H2O]",
    "km/hr": "km/h",
    "mi/hr": "[mi_us]/h",
}
_MOLES: Final = re.compile(r"([munp]?)mol<(?P<mass>[0-9]{1,6}(\.[0-9]{1,20})?)>(?P<per>/.*)?")


@cache
def of_healthkit(unit: str) -> Unit:
    """Return what to do with values in one of HealthKit's units."""
    if unit in _AS_THEY_ARE:
        return _AS_THEY_ARE[unit]
    moles = _MOLES.fullmatch(unit)
    if moles is not None:
        mass = canonical(f"{moles[1]}g{moles['per'] or ''}")
        return replace(mass, factor=mass.factor * float(moles["mass"]))
    plain = canonical(_UCUM.get(unit, unit))
    return replace(plain, factor=100.0 * plain.factor) if unit == "%" else plain
