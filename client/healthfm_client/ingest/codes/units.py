"""Units brought to one per kind of quantity, so that a lab in two units meets in one bin.

A unit is read as UCUM (ucumvert and pint, which know the conversions); what else hospitals write
for the same is respelt first. The unit stands behind the code: ``LOINC//2345-7//mg/dL``.
A mass and an amount of substance differ by the molar mass of what was measured, which a unit does
not tell; `molar` knows it for common tests.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

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
TINY: Final = {"kg": ("pg", 1e-15), "mL": ("fL", 1e-12)}
"""The unit of a cell's mass and volume, and what it is of the preferred one; for units up to 10,000
of it."""
_RESPELT: Final = {
    "ph": "",
    "[ph]": "",
    "n/a": "",
    "na": "",
    "unitless": "",
    "1": "",
    "ratio": "",
    "score": "",
    "bpm": "/min",
    "beats/min": "/min",
    "beats/minute": "/min",
    "breaths/min": "/min",
    "count/min": "/min",
    "per minute": "/min",
    "mmhg": "mm[Hg]",
    "mm hg": "mm[Hg]",
    "c": "Cel",
    "°c": "Cel",
    "degc": "Cel",
    "deg c": "Cel",
    "celsius": "Cel",
    "f": "[degF]",
    "°f": "[degF]",
    "degf": "[degF]",
    "deg f": "[degF]",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "oz": "[oz_av]",
    "in": "[in_i]",
    "inch": "[in_i]",
    "inches": "[in_i]",
    "ft": "[ft_i]",
    "mi": "[mi_i]",
    "count": "",
    "cal": "cal",
    "k/ul": "10*3/uL",
    "thousand/ul": "10*3/uL",
    "m/ul": "10*6/uL",
    "x10e3/ul": "10*3/uL",
    "x10^3/ul": "10*3/uL",
    "10^3/ul": "10*3/uL",
    "x10e9/l": "10*9/L",
    "10^9/l": "10*9/L",
    "percent": "%",
    "sec": "s",
    "secs": "s",
    "hr": "h",
    "hrs": "h",
    "hour": "h",
    "hours": "h",
    "days": "d",
    "years": "a",
    "cc": "mL",
}
_LONGEST: Final = 40
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
    plain = _respelt((text or "").strip())
    if not plain:
        return Unit("")
    return _read(plain) or Unit(re.sub(r"[\s\x00-\x1f]+", " ", plain)[:_LONGEST])


def _respelt(text: str) -> str:
    known = _RESPELT.get(text.lower())
    if known is not None:
        return known
    text = re.sub(r"\{[^{}]*\}", "", text).replace("µ", "u").replace("μ", "u")
    text = re.sub(r"(?<![A-Za-z])([mu]?)Eq(?![A-Za-z])", r"\1eq", text)
    text = re.sub(r"\[i?IU\]|\[iU\]|\bIU\b", "U", text)
    text = re.sub(r"(?<=/)(ml|dl|l|ul)\b", lambda match: match[0][:-1] + "L", text)
    return text.rstrip("/") if text != "[Cal]" else "kcal"


def _read(text: str) -> Unit | None:
    if len(text) > _LONGEST or not text.isprintable() or re.search(_ARBITRARY, text):
        return None
    from lark.exceptions import LarkError
    from pint import PintError
    from ucumvert.parser import InvalidUcumError

    try:
        unit = _converted(_of_ucum(text))
    except (LarkError, PintError, InvalidUcumError, ArithmeticError, AttributeError, ValueError):
        return None
    return unit if math.isfinite(unit.factor) and unit.factor > 0 else None


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
