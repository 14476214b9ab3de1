"""Groups of people: who is shown, who is withheld, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation.analyses.subgroups import (
    UNKNOWN,
    Groups,
    age_bands,
    site_groups,
    subgroup_rows,
    withheld,
)
from healthfm_core.evaluation.metrics.ranking import auroc
from healthfm_core.evaluation.predictions import Predictions


def predictions(subjects: int = 100, *, seed: int = 0) -> Predictions:
    """Three rows each; the first half's scores say something, the others' nothing."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(subjects) + 1000, 3)
    outcome = rng.random(3 * subjects) < 0.5
    score = rng.random(3 * subjects)
    score[: len(score) // 2] += 2 * outcome[: len(score) // 2]
    return Predictions(
        subject=subject,
        site=((subject - 1000) // 50).astype(np.int32),
        target=np.zeros(len(subject), np.int32),
        repeats=np.zeros(len(subject), np.float32),
        score=(score / 3).astype(np.float32),
        outcome=outcome,
    )


def rows(groups: Groups, arms=None, **changes):
    given = {"k": 20, "bootstraps": 20, "metrics": ("auroc",)} | changes
    found = arms or {"federated": predictions()}
    return subgroup_rows(found, groups, rng=np.random.default_rng(0), **given)


def sex(*counts: tuple[str, int]) -> Groups:
    names = [name for name, n in counts for _ in range(n)]
    return Groups(np.arange(len(names)) + 1000, {"sex": np.array(names)})


def test_a_groups_row_is_the_metric_of_its_people():
    first, second = rows(sex(("F", 50), ("M", 50)))
    found = predictions()
    of_f = found.where(found.subject < 1050)
    assert (first.group, first.n_subjects, first.withheld) == ("F", 50, False)
    assert first.value == pytest.approx(auroc(of_f.score, of_f.outcome))
    assert first.value == 1.0
    assert second.low < 0.5 < second.high
    assert second.n_cases == len(np.unique(found.subject[(found.subject >= 1050) & found.outcome]))


def test_groups_below_the_threshold_are_named_and_nothing_else():
    found = {row.group: row for row in rows(sex(("F", 81), ("M", 10), ("X", 9)), k=15)}
    assert not found["F"].withheld
    for name in ("M", "X"):
        row = found[name]
        assert row.withheld
        assert {row.value, row.low, row.high, row.n_subjects, row.n_cases} == {None}


def test_a_count_that_a_subtraction_would_tell_is_withheld_with_the_smallest_other():
    """12 of 100 withheld alone: 100 less the shown would tell 12."""
    assert withheld({"A": 60, "B": 28, "C": 12}, 20) == {"B", "C"}
    assert withheld({"A": 60, "B": 20, "C": 15, "D": 5}, 20) == {"C", "D"}
    assert withheld({"A": 60, "B": 40}, 20) == frozenset()
    assert withheld({"A": 98, "B": 2}, 20) == {"A", "B"}


def test_people_without_a_label_are_a_group_of_their_own():
    found = rows(sex(("F", 40), ("", 30)))
    assert [row.group for row in found] == ["F", UNKNOWN]
    assert found[1].n_subjects == 60


def test_few_cases_are_not_counted_out():
    found = predictions()
    few = Predictions(
        found.subject, found.site, found.target, found.repeats, found.score,
        np.arange(len(found)) % 30 == 0,
    )  # fmt: skip
    (row,) = rows(sex(("F", 100)), {"federated": few})
    assert (row.n_subjects, row.n_cases) == (100, None)


def test_every_arm_has_its_row_and_a_subset_of_rows_may_be_asked_for():
    arms = {"federated": predictions(), "local": predictions(seed=0)}
    found = rows(sex(("F", 100)), arms)
    assert [row.arm for row in found] == ["federated", "local"]
    assert found[0].low == found[1].low
    assert rows(sex(("F", 100)), subset="repeat") == []


def test_labels_may_come_in_any_order():
    groups = sex(("F", 50), ("M", 50))
    turned = Groups(groups.subject[::-1], {"sex": groups.labels["sex"][::-1]})
    assert rows(groups) == rows(turned)


def test_ages_fall_into_bands_that_begin_on_a_birthday():
    found = age_bands(np.array([3.0, 18.0, 39.9, 40.0, 79.9, 80.0, np.nan]))
    assert found.tolist() == [
        "under 18", "18-39", "18-39", "40-64", "65-79", "80 and over", UNKNOWN,
    ]  # fmt: skip


def test_sites_are_groups_too():
    found = rows(site_groups(predictions(), ["north", "south"]))
    assert [(row.group, row.n_subjects) for row in found] == [("north", 50), ("south", 50)]


def test_a_subject_twice_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="twice"):
        Groups(np.array([1, 1]), {})
    with pytest.raises(ValueError, match="one label per subject"):
        Groups(np.array([1, 2]), {"sex": np.array(["F"])})
