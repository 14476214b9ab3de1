"""What a run can be asked beyond its main task: risks at horizons, probes of its states, …

Each is off unless ``evaluation`` asks for it, and works on the models that the arms trained.
"""

from healthfm_simulations.secondary.secondary_evaluations import Further, further_of, with_further

__all__ = ["Further", "further_of", "with_further"]
