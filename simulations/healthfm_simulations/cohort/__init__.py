"""The default cohort: simulated people whose truth is known."""

from healthfm_simulations.cohort.build import Cohort, CohortSite, generate

__all__ = ["Cohort", "CohortSite", "generate"]
