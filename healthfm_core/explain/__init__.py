"""Why a model gives a person a risk: shown to a clinician at the site, and kept there.

`explain` hides each part of one record in turn and asks the model again; `page` lays the answer
out. Both are about one person: nothing they return may leave the site.
"""

from healthfm_core.explain.kernel import HeadMemory, memories
from healthfm_core.explain.occlusion import Contribution
from healthfm_core.explain.page import page
from healthfm_core.explain.parts import Part
from healthfm_core.explain.person import Explanation, TargetRisk, explain

__all__ = [
    "Contribution",
    "Explanation",
    "HeadMemory",
    "Part",
    "TargetRisk",
    "explain",
    "memories",
    "page",
]
