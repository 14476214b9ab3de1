"""Which queries the arms are compared on."""

from __future__ import annotations

import numpy as np

from healthfm_core.evaluation import Predictions
from healthfm_simulations.scoring.model_scores import ScoredQueries, answered_by_all


def scored(queries: list[tuple[int, int, int]]) -> ScoredQueries:
    """Answers to (site, subject, time) queries about two targets; the score is the time."""
    where, subject, time = (np.array(column) for column in zip(*queries, strict=True))
    site = where.astype(np.int32)
    n = len(queries)
    score = np.repeat(time[:, None], 2, axis=1).astype(np.float32) / 100
    nothing = np.zeros((n, 2), np.float32)
    return ScoredQueries(
        Predictions.of_queries(subject, site, score, nothing > 0, nothing),
        site,
        subject,
        time,
        ("A", "B"),
    )


def test_arms_are_compared_on_the_queries_that_all_of_them_answered():
    reads_less = scored([(0, 7, 10), (0, 7, 20), (1, 3, 30)])
    reads_more = scored([(0, 7, 20), (1, 3, 30)])
    found = answered_by_all({"fedavg": reads_less, "federated": reads_more})
    assert found["fedavg"].time_us.tolist() == found["federated"].time_us.tolist() == [20, 30]
    np.testing.assert_allclose(found["fedavg"].predictions.score, [0.2, 0.2, 0.3, 0.3])


def test_an_arm_without_a_model_of_a_site_takes_nothing_from_the_others():
    at_test_sites = scored([(0, 7, 10), (1, 3, 30)])
    one_site = scored([(1, 3, 30)])
    found = answered_by_all({"federated": at_test_sites, "local": one_site})
    assert found["federated"].time_us.tolist() == [10, 30]
    assert found["local"].time_us.tolist() == [30]
