"""Units brought to one per kind of quantity, so that a lab in two units meets in one bin.

A unit is read as UCUM (ucumvert and pint, which know the conversions); what else hospitals write
for the same is respelt first (`unit_spellings`). The unit stands behind the code:
``LOINC//2345-7//mg/dL``. What a unit does not tell and the test does (the molar mass between a mass
and an amount, the valence of an amount of charge, what a mole fraction of is) `molar_units` knows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

from healthfm_client.ingest.codes.unit_spellings import respelt
from healthfm_client.ingest.codes.usual_units import USUAL

PREFERRED: Final = (
    "mg/dL",
    "mmol/L",
    "U/L",
    "10*9/L",
    "kg",
    "mL",
    "cm",
    "s",
    "mm[Hg]",
    "Cel",
    "1/min",
    "mL/min",
    "kg/m2",
    "m2",
    "m/s",
    "mmol/kg",
    "kcal",
    "%",
    "U",
    "mmol",
)
"""The unit of each kind of quantity."""
TINY: Final = {"kg": ("pg", 1e-15), "mL": ("fL", 1e-12), "m/s": ("mm/h", 1e-3 / 3600)}
"""The unit of a cell's mass and volume and of how fast it settles, and what it is of the preferred
one; for units up to 10,000 of it."""
_LONGEST: Final = 40
MOLE_FRACTION: Final = "mmol/mol"
"""Is no percentage: what it is a fraction of is told by what was measured alone."""
_MOLE_FRACTION: Final = re.compile(r"[munp]?mol/[mun]?mol")
_CHARGE: Final = {"mmol": "meq", "mmol/L": "meq/L", "mmol/kg": "meq/kg"}
AMOUNT_OF_CHARGE: Final = {charge: amount for amount, charge in _CHARGE.items()}
"""Unit of an amount of charge → that of the amount of substance that carries one each."""
_EQUIVALENT: Final = re.compile(r"(?<![A-Za-z])[munp]?eq(?![A-Za-z])")
_DIMER: Final = re.compile(r"[\s({]*\b(FEU|DDU)\b[)}]*$", re.IGNORECASE)
"""Units of fibrinogen and of D-dimer differ by two, and no unit says which an assay gives."""
_ARBITRARY: Final = r"\[(HPF|LPF|arb|CFU|PFU|FFU)"


@dataclass(frozen=True)
class Unit:
    """What a unit becomes: value · `factor` + `offset` in `name`; '' where there is none."""

    name: str
    factor: float = 1.0
    offset: float = 0.0


@lru_cache(1 << 14)
def canonical(text: str | None) -> Unit:
    """Return what to do with values in a unit; one that nobody can read stays as it is.

    Args:
        text: As the source writes it.
    """
    plain = (text or "").strip()
    of_dimer = _DIMER.search(plain)
    if of_dimer is not None:
        unit = canonical(plain[: of_dimer.start()])
        return replace(unit, name=f"{unit.name}{{{of_dimer[1].upper()}}}")
    plain = respelt(plain)
    if not plain:
        return Unit("")
    if plain in USUAL:
        return Unit(*USUAL[plain])
    return _read(plain) or Unit(re.sub(r"[\s\x00-\x1f]+", " ", plain)[:_LONGEST])


def _read(text: str) -> Unit | None:
    if len(text) > _LONGEST or not text.isprintable() or re.search(_ARBITRARY, text):
        return None
    if text.isdigit():  # a code of another system, and no factor
        return None
    from lark.exceptions import LarkError
    from pint import PintError
    from ucumvert.parser import InvalidUcumError

    try:
        unit = _converted(_of_ucum(text))
    except (LarkError, PintError, InvalidUcumError, ArithmeticError, AttributeError, ValueError):
        return None
    if not (math.isfinite(unit.factor) and unit.factor > 0):
        return None
    if _EQUIVALENT.search(text):
        name = _CHARGE.get(unit.name)
        return None if name is None else replace(unit, name=name)
    if _MOLE_FRACTION.fullmatch(text):
        return Unit(MOLE_FRACTION, float(f"{10 * unit.factor:.12g}"))
    return unit


def _converted(quantity: Any) -> Unit:
    name = _by_kind().get(str(quantity.dimensionality))
    if name is None:
        base = quantity.to_base_units()
        return Unit(f"{base.units:~C}", float(base.magnitude))
    target = _of_ucum(name).units
    at_zero, at_one = (
        float(_registry().Quantity(number * quantity.m, quantity.units).to(target).m)
        / float(_of_ucum(name).m)
        for number in (0.0, 1.0)
    )
    factor = float(f"{at_one - at_zero:.12g}")
    small, size = TINY.get(name, ("", 0.0))
    if small and factor < 1e4 * size:
        return Unit(small, float(f"{factor / size:.12g}"))
    return Unit(name, factor, float(f"{at_zero:.12g}"))


@cache
def _by_kind() -> dict[str, str]:
    return {str(_of_ucum(name).dimensionality): name for name in PREFERRED}


def _of_ucum(code: str) -> Any:
    from ucumvert import parse_ucum  # not above: it takes half a second to import

    return _transformer().transform(parse_ucum(code, _parser()))


@cache
def _parser() -> Any:
    from ucumvert import get_ucum_parser

    return get_ucum_parser()


@cache
def _transformer() -> Any:
    from ucumvert import UcumToPintTransformer

    return UcumToPintTransformer(_registry())


@cache
def _registry() -> Any:
    """Return pint's units and those of UCUM.

    `ucumvert.PintUcumRegistry` is the same and builds pint's own beside it, which takes as long.
    """
    import ucumvert
    from pint import UnitRegistry

    registry = UnitRegistry()
    registry.load_definitions(Path(ucumvert.__file__).with_name("pint_ucum_defs.txt"))
    return registry
