"""What a run can be asked beyond its main task: risks at horizons, probes of its states, …

Each is off unless ``evaluation`` asks for it, and works on the models that the arms trained.
"""

from healthfm_simulations.secondary.secondary_evaluations import (
    SecondaryEvaluations,
    evaluate_secondary,
    with_secondary,
)

__all__ = ["SecondaryEvaluations", "evaluate_secondary", "with_secondary"]
