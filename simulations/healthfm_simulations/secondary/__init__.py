"""Secondary evaluations: risks at horizons, probes of the states, groups of people, …

Each is off unless the group ``evaluation`` turns it on, and uses the models that the arms trained.
"""

from healthfm_simulations.secondary.secondary_evaluations import (
    SecondaryEvaluations,
    evaluate_secondary,
    with_secondary,
)

__all__ = ["SecondaryEvaluations", "evaluate_secondary", "with_secondary"]
