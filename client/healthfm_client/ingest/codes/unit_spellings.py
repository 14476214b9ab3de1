"""What hospitals write for a unit, respelt as UCUM.

UCUM is case-sensitive, and most exports are not: ``MG/DL``, ``K/cumm``, ``mcg/mL``, ``Deg.F`` and
``x10^9/L`` name units that it has under other names. What is respelt here was found in exports of
MIMIC, eICU, Synthea and of hospitals in the United Kingdom and on the continent. A unit that only
capital letters would tell from a usual one (a megagram from ``MG``) is not used in medicine.
"""

from __future__ import annotations

import re
from typing import Final

_NONE: Final = (
    *("ph", "[ph]", "ph units", "n/a", "na", "none", "unitless", "no unit", "1", "ratio", "score"),
    *("points", "index", "inr", "{inr}", "count", "#"),
)
_WHOLE: Final = {
    **dict.fromkeys(_NONE, ""),
    **dict.fromkeys(("bpm", "rpm", "per minute", "per min"), "/min"),
    **dict.fromkeys(("mmhg", "mm hg", "mm(hg)", "torr"), "mm[Hg]"),
    **dict.fromkeys(("cmh2o", "cm h2o", "cm(h2o)"), "cm[H2O]"),
    **dict.fromkeys(("percent", "pct", "% of total", "percentage"), "%"),
    **dict.fromkeys(("g%", "gm%", "g %", "gm %"), "g/dL"),
    **dict.fromkeys(("mg%", "mg %"), "mg/dL"),
    **dict.fromkeys(("m/ul", "m/cumm", "m/cmm", "m/mm3", "m/mcl"), "10*6/uL"),
    "[cal]": "kcal",
    "cal": "cal",
}
"""Whole texts in small letters."""
_EXACT: Final = {
    **dict.fromkeys(("G/L", "G/l"), "10*9/L"),
    **dict.fromkeys(("T/L", "T/l"), "10*12/L"),
    "mM": "mmol/L",
    "uM": "umol/L",
    "nM": "nmol/L",
    "pM": "pmol/L",
    "[Cal]": "kcal",
}
"""Whole texts as they are written: on the continent platelets are counted in giga a litre."""
_CELSIUS: Final = ("c", "degc", "degreec", "degreesc", "celsius", "degreescelsius", "degreecelsius")
_FAHRENHEIT: Final = (
    *("f", "degf", "degreef", "degreesf", "fahrenheit"),
    *("degreesfahrenheit", "degreefahrenheit"),
)
_TEMPERATURES: Final = {**dict.fromkeys(_CELSIUS, "Cel"), **dict.fromkeys(_FAHRENHEIT, "[degF]")}
"""Whole texts in small letters, without what is no letter."""
_WORDS: Final = {
    **{f"{p}g": f"{p}g" for p in ("", "k", "m", "u", "n", "p", "f")},
    **{f"{p}l": f"{p}L" for p in ("", "d", "c", "m", "u", "n", "p", "f")},
    **{f"{p}mol": f"{p}mol" for p in ("", "m", "u", "n", "p", "f")},
    **{f"{p}eq": f"{p}eq" for p in ("", "m", "u", "n")},
    **{f"{p}iu": f"{p}U" for p in ("", "m", "u", "n", "k")},
    "mciu": "uU",
    **{f"{p}[iu]": f"{p}U" for p in ("", "m", "u", "n", "k")},
    **{f"{p}osm{end}": f"{p}osm" for p in ("", "m") for end in ("", "ol", "oles")},
    **dict.fromkeys(("gm", "gms", "gram", "grams"), "g"),
    **dict.fromkeys(("mgs", "mgm"), "mg"),
    **dict.fromkeys(("kgs", "kilogram", "kilograms", "kilo"), "kg"),
    **dict.fromkeys(("mcg", "mcgs", "microgram", "micrograms"), "ug"),
    **dict.fromkeys(("liter", "litre", "liters", "litres"), "L"),
    **dict.fromkeys(("mcl", "microl", "microliter", "microlitre"), "uL"),
    **dict.fromkeys(("cc", "mls", "milliliter", "millilitre", "milliliters"), "mL"),
    **dict.fromkeys(("cmm", "cumm", "cu mm", "cu.mm", "mm3", "mm^3", "mm*3"), "mm3"),
    **dict.fromkeys(("um3", "um^3", "cu um", "femtoliter", "femtolitre"), "um3"),
    **dict.fromkeys(("mcmol", "micromol", "micromole", "micromoles"), "umol"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "1h", "1hr", "1 h", "1 hr"), "h"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("d", "day", "days", "24h", "24hr", "24hrs", "24 h", "24 hr", "24 hrs"), "d"),
    **dict.fromkeys(("24.h", "(24.h)", "24hours", "24 hours"), "d"),
    **dict.fromkeys(("a", "yr", "yrs", "year", "years"), "a"),
    **dict.fromkeys(("mo", "month", "months"), "mo"),
    **dict.fromkeys(("wk", "week", "weeks"), "wk"),
    **dict.fromkeys(("k", "thou", "thous", "thousand", "thousands"), "10*3"),
    **dict.fromkeys(("mil", "mill", "million", "millions"), "10*6"),
    **dict.fromkeys(("bil", "bill", "billion", "giga"), "10*9"),
    **dict.fromkeys(("trillion", "tera"), "10*12"),
    **dict.fromkeys(("cells", "cell", "#", "copies", "count", "counts", "plts", "wbc", "rbc"), "1"),
    **dict.fromkeys(("breaths", "breath", "insp", "insp.", "resp", "br", "beats", "beat"), "1"),
    **dict.fromkeys(("u", "unit", "units", "int unit", "int units"), "U"),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), "[lb_av]"),
    **dict.fromkeys(("oz", "ounce", "ounces"), "[oz_av]"),
    **dict.fromkeys(("in", "inch", "inches"), "[in_i]"),
    **dict.fromkeys(("ft", "foot", "feet"), "[ft_i]"),
    **dict.fromkeys(("mi", "mile", "miles"), "[mi_i]"),
    **dict.fromkeys(("m2", "m^2", "sq m", "sqm", "sq.m"), "m2"),
    **{name: name for name in ("mm", "cm", "um", "km")},
    "kpa": "kPa",
    "kcal": "kcal",
}
"""What stands between two strokes, in small letters."""
_POWER: Final = re.compile(r"^[xX×*]?\s*10\s*(?:\^|\*\*?|[eE]|\(|\[)\s*\+?(\d{1,2})[)\]]?")
_SURFACE: Final = re.compile(
    r"\s*(?:/|per\b|\.)?\s*[({\[]?\s*1[.,_]73[\s._]*"
    r"(?:m\s*(?:\^|\*\*?)?\s*2|sq\.?\s*m)?\s*[)}\]]?$",
    re.IGNORECASE,
)
"""Of the body: a clearance is told for 1.73 m² by convention, whether its unit says so or not."""
_WITH_COUNTED: Final = re.compile(r"^(10\*\d+)\s*\.?\s*(?:cells?|wbc|rbc|copies)$", re.IGNORECASE)


def respelt(text: str) -> str:
    """Return a unit as UCUM has it, '' for what has none; what is not known stays as it is.

    Args:
        text: As the source writes it, without spaces at its ends.
    """
    known = _EXACT.get(text, _WHOLE.get(text.lower()))
    if known is not None:
        return known
    heat = _TEMPERATURES.get(re.sub(r"[^a-z]", "", text.lower()))
    if heat is not None and not re.search(r"[0-9/%]", text):
        return heat
    text = text.translate(_LETTERS)
    text = _SURFACE.sub("", text)
    text = re.sub(r"\{[^{}]*\}", "", text)
    text = _POWER.sub(r"10*\1", text)
    text = re.sub(r"/\s*100\s*m[lL]\b", "/dL", text)
    text = re.sub(r"\s+per\s+", "/", text)
    return "/".join(_part(part.strip()) for part in text.split("/")).rstrip("/")


_LETTERS: Final = str.maketrans({"µ": "u", "μ": "u", "²": "2", "³": "3", "⁹": "9", "·": "."})


def _part(part: str) -> str:
    counted = _WITH_COUNTED.match(part)
    if counted is not None:
        return counted[1]
    if part.startswith("10*"):
        number, _, unit = part.partition(" ")
        return number + ("." + _part(unit) if unit else "")
    return _WORDS.get(part.lower(), part)
