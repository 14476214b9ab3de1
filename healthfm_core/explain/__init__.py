"""Why a model gives a person a risk: shown to a clinician at the site, and kept there.

`explain` hides each part of one record in turn and asks the model again; `explanation_html` makes a
page of the answer. Both are about one person: nothing they return may leave the site.
"""

from healthfm_core.explain.explanation_page import explanation_html
from healthfm_core.explain.kernel_curves import HeadMemory, memories
from healthfm_core.explain.occlusion import Contribution
from healthfm_core.explain.person_explanation import Explanation, TargetRisk, explain
from healthfm_core.explain.record_parts import RecordPart

__all__ = [
    "Contribution",
    "Explanation",
    "HeadMemory",
    "RecordPart",
    "TargetRisk",
    "explain",
    "explanation_html",
    "memories",
]
