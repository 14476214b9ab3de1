"""What is above the codes that a site lets out: names, which say nothing of its people.

Each code has one parent, the first of the site's table (``metadata/codes.parquet``), else what its
form says (`code_forms`). What a study makes of it is `common_ancestors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from healthfm_core.tokens.code_forms import parent_by_form

MOST_LEVELS: Final = 4
"""How far up a code may become another; what is further up has little in common with it."""
TOP: Final = ""
"""Stands for the parent of a code that has none."""
_BY_PARTS: Final = "LOINC"
"""Its parts are what tests are made of: nothing that is measured stands for another thing."""


def with_forms(parents: Mapping[str, str], codes: Iterable[str]) -> dict[str, str]:
    """Return `parents`, and for `codes` and what is above them what their forms say besides."""
    known = dict(parents)
    for code in codes:
        at, seen = code, {code}
        while above := known.get(at) or parent_by_form(at):
            if above in seen:
                break
            known[at] = above
            seen.add(above)
            at = above
    return known


def lineage_of(codes: Iterable[str], parents: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return (code, parent) of codes and of what is above them, sorted; each code once.

    A code that names a unit or an answer, ``SNOMED//123//Positive``, is not below the code without
    it here, and LOINC's are below nothing.

    Args:
        codes: Codes without values that the site lets out.
        parents: The site's code → its parent.

    Returns:
        Pairs up to `MOST_LEVELS` above a code; the parent is `TOP` where no more is told.
    """
    told: dict[str, str] = {}
    for code in codes:
        at = code
        for _ in range(MOST_LEVELS):
            above = _above(at, parents)
            if above is None:
                break
            told[at] = above
            at = above
        told.setdefault(at, TOP)
    return tuple(sorted(told.items()))


def _above(code: str, parents: Mapping[str, str]) -> str | None:
    above = parents.get(code)
    if above is None or code.startswith((f"{above}//", f"{_BY_PARTS}//")):
        return None
    return above
