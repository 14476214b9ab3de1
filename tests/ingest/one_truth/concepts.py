"""What happens to a made person: conditions, drugs, procedures, vaccines, answers, in codes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What sort of fact a code is."""

    CONDITION = "condition"
    DRUG = "drug"
    PROCEDURE = "procedure"
    VACCINE = "vaccine"
    ANSWER = "answer"


@dataclass(frozen=True)
class Code:
    """A code that a store is to hold.

    Attributes:
        kind: What sort of fact it is.
        vocabulary: As OMOP names it.
        code: In that vocabulary; of an answer, that of the question.
        also: (vocabulary, code) that a billing system gives beside it.
        answer: (vocabulary, code) of an answer.
    """

    kind: Kind
    vocabulary: str
    code: str
    also: tuple[str, str] | None = None
    answer: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """``VOCABULARY//CODE``, with the answer behind it."""
        said = "" if self.answer is None else f"//{self.answer[0]}:{self.answer[1]}"
        return f"{self.vocabulary}//{self.code}{said}"


def _condition(snomed: str, icd: str) -> Code:
    return Code(Kind.CONDITION, "SNOMED", snomed, ("ICD10CM", icd))


def _drug(rxnorm: str, ndc: str) -> Code:
    return Code(Kind.DRUG, "RxNorm", rxnorm, ("NDC", ndc))


DIABETES = _condition("44054006", "E11.9")
HYPERTENSION = _condition("59621000", "I10")
KIDNEY_DISEASE = _condition("709044004", "N18.9")
HEART_FAILURE = _condition("84114007", "I50.9")
FIBRILLATION = _condition("49436004", "I48.91")
COPD = _condition("13645005", "J44.9")
HYPERLIPIDAEMIA = _condition("55822004", "E78.5")
OBESITY = _condition("414916001", "E66.9")
GOUT = _condition("90560007", "M10.9")
PNEUMONIA = _condition("233604007", "J18.9")
CYSTITIS = _condition("68566005", "N39.0")
ANAEMIA = _condition("271737000", "D64.9")
NOT_MAPPED = Code(Kind.CONDITION, "ICD10CM", "Z91.198")
"""Has no standard concept: a CDM knows it by its source concept alone."""

CONDITIONS = {
    DIABETES: (-4.2, (1.5, 0.0, 0.0), True),
    HYPERTENSION: (-3.4, (0.3, 1.3, 0.0), True),
    KIDNEY_DISEASE: (-4.8, (0.3, 1.5, 0.0), True),
    HEART_FAILURE: (-5.0, (0.0, 1.7, 0.0), True),
    FIBRILLATION: (-4.6, (0.0, 1.2, 0.3), True),
    COPD: (-4.6, (0.0, 0.0, 1.4), True),
    HYPERLIPIDAEMIA: (-3.6, (1.1, 0.4, 0.0), True),
    OBESITY: (-4.0, (1.3, 0.0, 0.0), True),
    GOUT: (-4.8, (0.9, 0.7, 0.0), True),
    PNEUMONIA: (-4.2, (0.0, 0.0, 1.6), False),
    CYSTITIS: (-3.8, (0.5, 0.0, 0.6), False),
    ANAEMIA: (-4.4, (0.0, 0.8, 0.8), True),
    NOT_MAPPED: (-4.0, (0.3, 0.3, 0.3), False),
}
"""Condition → log odds at a visit without any burden, what a unit of each burden adds, and whether
it stays."""

TREATED_WITH = {
    DIABETES: _drug("860975", "00093-1048-01"),
    HYPERTENSION: _drug("314076", "00143-1267-01"),
    HEART_FAILURE: _drug("310429", "00054-8297-25"),
    FIBRILLATION: _drug("855332", "00093-1721-01"),
    COPD: _drug("745679", "00173-0682-20"),
    HYPERLIPIDAEMIA: _drug("617312", "00071-0156-23"),
    GOUT: _drug("197319", "00591-5543-01"),
}
EXAMINED_BY = {
    HEART_FAILURE: Code(Kind.PROCEDURE, "SNOMED", "40701008"),
    FIBRILLATION: Code(Kind.PROCEDURE, "CPT4", "93000"),
}
INFLUENZA_VACCINE = Code(Kind.VACCINE, "CVX", "140")
SMOKING = tuple(
    Code(Kind.ANSWER, "LOINC", "72166-2", answer=("SNOMED", answer))
    for answer in ("266919005", "8517006", "77176002")
)
"""Never, former, current."""
