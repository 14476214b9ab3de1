"""Losses: each gives a vector of one loss per subject, never a scalar over subjects."""

from healthfm_core.objectives.cross_modal import cross_modal
from healthfm_core.objectives.label import label
from healthfm_core.objectives.masked_reconstruction import (
    Hidden,
    hide,
    masked_codes,
    masked_wearing,
)
from healthfm_core.objectives.next_event import next_event, next_events
from healthfm_core.objectives.next_visit import next_visit
from healthfm_core.objectives.predictive_coding import hours_ahead, predictive_coding
from healthfm_core.objectives.time_to_event import risk, time_to_event

__all__ = [
    "Hidden",
    "cross_modal",
    "hide",
    "hours_ahead",
    "label",
    "masked_codes",
    "masked_wearing",
    "next_event",
    "next_events",
    "next_visit",
    "predictive_coding",
    "risk",
    "time_to_event",
]
