"""What is above a code by its own form: classifications whose codes grow to the right.

A classification's shorter code is a category of the longer one: ICD-10 ``E11.65`` → ``E11.6`` →
``E11``, ATC ``A10BA02`` → ``A10BA`` → ``A10B`` → ``A10``. No table is needed, and none is asked
for. Where a form ends (an ICD's category, an ATC's therapeutic subgroup) nothing is above: chapters
hold what has nothing in common. SNOMED's and LOINC's numbers say nothing of what is above them.

Sources: ICD-10-CM Official Guidelines I.A (categories of three characters, ``X`` as a placeholder);
ICD-9-CM, Introduction (three characters, ``E`` codes four); WHO Collaborating Centre for Drug
Statistics Methodology, "ATC: structure and principles" (lengths 1, 3, 4, 5, 7).
"""

from __future__ import annotations

from typing import Final

_ICD_10: Final = frozenset(
    {"ICD10", "ICD10CM", "ICD10CN", "ICD10GM", "CIM10", "KCD7", "DIAGNOSIS//ICD//10"}
)
_ICD_9: Final = frozenset({"ICD9CM", "DIAGNOSIS//ICD//9"})
_ATC_LENGTHS: Final = {7: 5, 5: 4, 4: 3}


def parent_by_form(code: str) -> str | None:
    """Return the next shorter code of the same classification, None where there is none.

    Args:
        code: As stores spell it, ``ICD10CM//E11.65``; what stands before the last ``//`` says which
            classification it is.
    """
    head, _, own = code.rpartition("//")
    if head in _ICD_10:
        above = _shorter(own, 3)
    elif head in _ICD_9:
        above = _shorter(own, 4 if own.startswith("E") else 3)
    elif head == "ATC":
        above = own[: _ATC_LENGTHS.get(len(own), 0)]
    else:
        above = ""
    return f"{head}//{above}" if above else None


def _shorter(own: str, category: int) -> str:
    """Return an ICD's code without its last character; '' of a category and of a range."""
    shorter = own[:-1].rstrip(".")
    while len(shorter) > category and shorter.endswith("X"):
        shorter = shorter[:-1].rstrip(".")
    return shorter if len(shorter) >= category and own.replace(".", "", 1).isalnum() else ""
