"""What a trained model says of a site's people, one number each, a part of the store at a time.

It is computed at the site, about its people, and kept there. Nothing of it is in a protocol record.
"""

from healthfm_core.predict.people_limits import REASONS, PeopleLimits
from healthfm_core.predict.people_predictions import PeoplePredictions, predict_people
from healthfm_core.predict.prediction_task import PredictionTask
from healthfm_core.predict.readable_store import check_readable

__all__ = [
    "REASONS",
    "PeopleLimits",
    "PeoplePredictions",
    "PredictionTask",
    "check_readable",
    "predict_people",
]
