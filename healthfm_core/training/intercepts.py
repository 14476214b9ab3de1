"""What a site shifts its answers by: how its own rates differ from the study's.

Hospitals differ in how often an outcome occurs for reasons no record shows: whom they admit, what
they write down. One shared intercept is pulled to and fro by their local training and averages to
none of them. So each site adds to a head's logits the log odds of its own rate less those of the
study's, as a constant: the shared parameters learn what is left, the same everywhere (the prior
correction of Saerens et al. 2002; Zhang et al. 2022 use it against label skew in federated
learning). The rates are counted on the site's training people, shrunk, and stay at the site. A site
that took no part in training has none and answers at the study's rate.

Under differential privacy there are none: one person must not move what all others train with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from scipy.special import gammaln

from healthfm_core.arrays import Float32, Float64, Int64
from healthfm_core.bounded_parts import in_parts
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.federation.protocol import Study

Intercepts = Mapping[str, Float32]

PRIOR_CASES: Final = 20.0
"""A site's rate is counted as if it had had this many further cases, at the study's rate."""

PRIORS: Final = np.geomspace(0.05, 1e4, 200)
"""What `prior_cases` chooses from; the last is as good as no site's own rate."""


def site_intercepts(train: Sequences, study: Study) -> dict[str, Float32]:
    """Return the site's intercepts: ``label`` [1] and ``next_visit`` [V], added to the logits.

    For targets a case is the first time a subject has it, so that the many visits of one chronic
    subject count once.

    Args:
        train: The site's training people.
        study: Whose rates the site is compared with.
    """
    config = study.config
    if not config.train.site_intercepts or config.privacy.mechanism.is_private:
        return {}
    vocabulary = study.vocabulary
    intercepts = {}
    if study.config.label_task is not None:
        cases, rows = train.label_value.sum(), len(train.label_value)
        intercepts["label"] = log_odds_ratio(cases, rows, vocabulary.label_rate)[None]
    if vocabulary.targets:
        cases = subjects_with(train, len(vocabulary.targets))
        rows, rates = len(train.visit_time_us), np.array(vocabulary.onset_rates)
        own = study.config.train.intercept_prior == "own_spread"
        prior = prior_cases(cases, rows, rates) if own else PRIOR_CASES
        intercepts["next_visit"] = log_odds_ratio(cases, rows, rates, prior)
    return intercepts


def prior_cases(cases: Int64, rows: int, rates: Float64) -> float:
    """Return how many cases the study's rates are worth at this site.

    A target's cases are taken as Poisson about the site's rate, and that rate as gamma about the
    study's, of one shape for all targets: the shape, which is the number of cases the study's rate
    is worth, is the one under which the site's own counts are likeliest (empirical Bayes, Robbins
    1956). A site that differs from the study more than chance explains trusts its own counts; one
    that does not is shrunk to the study's rates.

    Args:
        cases: [V] of how many `rows` each outcome holds.
        rows: How many there are.
        rates: [V] the study's.
    """
    known = (rates > 0) & (rates < 1)
    if not known.any() or rows == 0:
        return PRIOR_CASES
    k, c, expected = PRIORS[:, None], cases[known], rows * rates[known]
    likelihood = gammaln(c + k) - gammaln(k) - k * np.log1p(expected / k)
    likelihood = likelihood - c * np.log(expected + k)
    return float(PRIORS[likelihood.sum(axis=1).argmax()])


def log_odds_ratio(cases: Any, rows: int, rate: Any, prior: float = PRIOR_CASES) -> Float32:
    """Return the log odds of a site's shrunk rate less those of the study's; 0 where it has none.

    Args:
        cases: [...] of how many `rows` the outcome holds.
        rows: How many there are.
        rate: [...] the study's rate, in [0, 1].
        prior: Further cases at the study's rate that the site's are shrunk by.
    """
    known = np.asarray((np.asarray(rate) > 0) & (np.asarray(rate) < 1))
    study = np.where(known, rate, 0.5)
    own = (cases + prior) / (rows + prior / study)
    shift = np.log(own / np.maximum(1 - own, 1e-9)) - np.log(study / (1 - study))
    return np.asarray(np.where(known, shift, 0.0), np.float32)


def subjects_with(sequences: Sequences, targets: int) -> Int64:
    """Return [V] how many subjects have each target in any visit."""
    name = f"subjects_with {targets}"
    if name not in sequences.totals:
        sequences.totals[name] = _subjects_with(sequences, targets)
    return sequences.totals[name]


def _subjects_with(sequences: Sequences, targets: int) -> Int64:
    found = np.zeros(targets, np.int64)
    bounds = sequences.visit_target_offsets[sequences.visit_offsets]
    for low, high in in_parts(np.diff(bounds)):
        size = np.diff(bounds[low : high + 1])
        subject = np.repeat(np.arange(high - low), size)
        target = sequences.visit_target[bounds[low] : bounds[high]].astype(np.int64)
        pairs = np.unique(target * (high - low) + subject)
        found += np.bincount(pairs // (high - low), minlength=targets)
    return found
