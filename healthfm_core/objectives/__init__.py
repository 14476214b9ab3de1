"""Losses: each gives a vector of one loss per subject, never a scalar over subjects."""

from healthfm_core.objectives.label import label
from healthfm_core.objectives.masked_reconstruction import hide, masked_codes, masked_wearing
from healthfm_core.objectives.next_visit import next_visit
from healthfm_core.objectives.time_to_event import risk, time_to_event

__all__ = [
    "hide",
    "label",
    "masked_codes",
    "masked_wearing",
    "next_visit",
    "risk",
    "time_to_event",
]
