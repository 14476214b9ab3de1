"""Sex, race, visits and death spelled alike by every reader, with the codes of OMOP's vocabularies.

Federations learn from codes that sites share: ``GENDER//Female`` of one and ``Gender//F`` of
another are two codes of which neither teaches the other's site. What is not known here keeps the
spelling that it comes with. Codes of race and ethnicity: the Office of Management and Budget's, as
OMOP's vocabularies Race and Ethnicity and the CDC's code set (urn:oid:2.16.840.1.113883.6.238) have
them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from meds import death_code

from healthfm_client.ingest.codes.distinct_codes import SEPARATOR, joined, tidy

SEXES: Final = {
    **dict.fromkeys(("m", "male"), "M"),
    **dict.fromkeys(("f", "female"), "F"),
    **dict.fromkeys(("other", "o"), "other"),
    **dict.fromkeys(("unknown", "unk", "u"), "unknown"),
}
"""What a sex is written as, in lower case → its code."""
RACES: Final = {
    **dict.fromkeys(
        ("american indian or alaska native", "american indian/alaska native"), "Race//1"
    ),
    **dict.fromkeys(("native american", "1002-5"), "Race//1"),
    **dict.fromkeys(("asian", "2028-9"), "Race//2"),
    **dict.fromkeys(("black", "african american", "black or african american"), "Race//3"),
    **dict.fromkeys(("black/african american", "2054-5"), "Race//3"),
    **dict.fromkeys(("native hawaiian or other pacific islander", "2076-8"), "Race//4"),
    **dict.fromkeys(("hawaiian", "native hawaiian", "pacific islander"), "Race//4"),
    **dict.fromkeys(("white", "caucasian", "2106-3"), "Race//5"),
    **dict.fromkeys(("hispanic", "hispanic or latino", "hispanic/latino"), "Ethnicity//Hispanic"),
    **dict.fromkeys(("mexican american", "other hispanic", "2135-2"), "Ethnicity//Hispanic"),
    **dict.fromkeys(("nonhispanic", "non-hispanic", "2186-5"), "Ethnicity//Not Hispanic"),
    **dict.fromkeys(("not hispanic", "not hispanic or latino"), "Ethnicity//Not Hispanic"),
}
"""What a race or an ethnicity is written as, in lower case → its code."""
VISITS: Final = {
    **dict.fromkeys(("ip", "imp", "acute", "nonac", "inpatient", "inpatient visit"), "IP"),
    **dict.fromkeys(("op", "amb", "ambulatory", "outpatient", "outpatient visit"), "OP"),
    **dict.fromkeys(("er", "emer", "emergency", "emergency room visit"), "ER"),
    "erip": "ERIP",
    **dict.fromkeys(("hh", "home"), "HH"),
    **dict.fromkeys(("vr", "virtual"), "VR"),
    "unknown": "unknown",
}
"""What a visit is called, in lower case, by OMOP or as the class of a FHIR encounter → its code."""
CONCEPTS: Final = {
    8507: "Gender//M",
    8532: "Gender//F",
    8521: "Gender//other",
    8551: "Gender//unknown",
    8657: "Race//1",
    8515: "Race//2",
    8516: "Race//3",
    8557: "Race//4",
    8527: "Race//5",
    38003563: "Ethnicity//Hispanic",
    38003564: "Ethnicity//Not Hispanic",
    **dict.fromkeys((9201, 8717), "Visit//IP"),
    **dict.fromkeys((9202, 8756, 581477, 8940), "Visit//OP"),
    **dict.fromkeys((9203, 8870), "Visit//ER"),
    262: "Visit//ERIP",
    **dict.fromkeys((581476, 8536), "Visit//HH"),
    5083: "Visit//VR",
}
"""OMOP concept → its code, whether or not the vocabulary tables are there. Offices, homes and wards
are also concepts of CMS's places of service."""
_END: Final = "end"


def sex_code(text: str) -> str:
    """Return the code of a sex, as anybody writes it."""
    return joined("Gender", SEXES.get(text.strip().lower(), tidy(text)))


def race_code(text: str, domain: str = "Race") -> str:
    """Return the code of a race or an ethnicity, as anybody writes it.

    Args:
        text: ``WHITE``, ``Caucasian``, ``2106-3``, ``WHITE - RUSSIAN``.
        domain: What stands before one that is not known.
    """
    return _known_race(text) or joined(domain, tidy(text))


def _known_race(text: str) -> str | None:
    plain = text.strip().lower()
    return RACES.get(plain) or RACES.get(plain.partition(" - ")[0])


def visit_code(text: str) -> str:
    """Return the code of a visit, as anybody writes it."""
    return joined("Visit", VISITS.get(text.strip().lower(), tidy(text)))


@lru_cache(1 << 16)
def shared_spelling(code: str) -> str:
    """Return a code as every reader spells it; one that says none of these things as it is.

    Args:
        code: ``GENDER//Female``, ``RACE//WHITE``, ``VISIT//IP//END``, ``DEATH``.
    """
    domain, _, said = code.partition(SEPARATOR)
    match domain.lower():
        case "gender" | "sex" if said.lower() in SEXES:
            return sex_code(said)
        case "race" | "ethnicity":
            return _known_race(said) or code
        case "visit":
            kind, _, end = said.partition(SEPARATOR)
            if kind.lower() in VISITS and end.lower() in ("", _END):
                return joined(visit_code(kind), end.upper())
        case "death" if not said:
            return str(death_code)
    return code
