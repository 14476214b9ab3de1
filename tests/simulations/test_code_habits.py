"""Sites that write a condition under codes below it: which, how often, and how they are judged."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from healthfm_core.config import CohortConfig, RunConfig
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_core.tokens.common_ancestors import roll_ups
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_simulations.cohort import Cohort, generate, write_sites
from healthfm_simulations.partition.code_habits import condition_of, draw_shares
from healthfm_simulations.scoring.model_scores import by_condition, check_what_is_judged
from healthfm_simulations.simulation_run import run_simulation

SMALL = CohortConfig(subjects=240, sites=3, conditions=6, without_wearable=1.0)
SPLIT = SMALL.model_copy(update={"code_variants": 4})


def told(cohort: Cohort, site: int = 0) -> list[tuple[int, object, str, object]]:
    columns = cohort.sites[site].events.to_pydict()
    return list(
        zip(*(columns[n] for n in ("subject_id", "time", "code", "numeric_value")), strict=True)
    )


@pytest.fixture(scope="module")
def split() -> Cohort:
    return generate(SPLIT, 0)


def test_off_by_default_and_then_every_site_writes_the_conditions_own_codes():
    assert CohortConfig().code_variants == 1
    (site, *_) = generate(SMALL, 0).sites
    assert not [row["code"] for row in site.codes.to_pylist() if "." in row["code"]]
    assert not [code for code in site.events["code"].to_pylist() if "." in code]


def test_the_same_people_have_the_same_conditions_under_codes_below_them(split):
    plain = told(generate(SMALL, 0))
    assert [(s, t, condition_of(c), v) for s, t, c, v in told(split)] == plain
    of_conditions = [code for *_, code, _ in told(split) if code.startswith("DX//")]
    assert of_conditions
    assert all(code[-2:] in (".1", ".2", ".3", ".4") for code in of_conditions)


def test_the_store_says_of_each_code_below_which_condition_it_is(split):
    parents = {row["code"]: row["parent_codes"] for row in split.sites[0].codes.to_pylist()}
    assert parents["DX//C05.4"] == ["DX//C05"]
    assert len([code for code in parents if "." in code]) == 6 * 4


def test_a_site_keeps_to_its_habit_and_the_next_has_another():
    of_few = generate(SPLIT.model_copy(update={"code_habit": 0.01, "subjects": 600}), 0)
    seen = [Counter(c for *_, c, _ in told(of_few, i) if c.startswith("DX//C00")) for i in range(3)]
    assert all(found.most_common(1)[0][1] > 0.9 * found.total() for found in seen)
    habits = [
        tuple(
            Counter(c for *_, c, _ in told(of_few, i) if f"C{n:02d}" in c).most_common(1)[0][0]
            for n in range(6)
        )
        for i in range(3)
    ]
    assert len({*habits}) == 3


def test_shares_are_of_one_code_or_of_all_alike_by_alpha():
    rng = np.random.default_rng(0)
    few = draw_shares([f"C{i}" for i in range(50)], 4, 0.01, rng)
    alike = draw_shares([f"C{i}" for i in range(50)], 4, 1000.0, rng)
    assert np.mean([share.max() for share in few.values()]) > 0.95
    assert max(share.max() for share in alike.values()) < 0.35
    assert all(share.sum() == pytest.approx(1) for share in (*few.values(), *alike.values()))


def test_such_sites_meet_again_where_the_study_rolls_codes_up(split, tmp_path):
    stores = [SiteStore.open(path) for path in write_sites(split, tmp_path)]
    tokens = TokensConfig(k_min=5, common_share=0.9)
    become = roll_ups(merge([site_statistics([store], tokens) for store in stores]), tokens)
    assert become
    assert {condition_of(code) for code in become} == {*become.values()}


def test_a_condition_is_as_likely_as_one_of_its_codes():
    names = ("DX//C01.2", "DX//C00", "DX//C01.1", "DX//C01")
    conditions, score = by_condition(names, np.array([[0.5, 0.25, 0.5, 0.0]], np.float32))
    assert conditions == ("DX//C01", "DX//C00")
    assert score.dtype == np.float32
    np.testing.assert_allclose(score, [[0.75, 0.25]])


@pytest.mark.parametrize(
    ("group", "name"), [("simulation", "baselines"), ("evaluation", "heritable")]
)
def test_what_would_judge_single_codes_is_refused(group, name, tmp_path):
    asks = {"data": {"cohort": {"code_variants": 2}}, "simulation": {"baselines": False}}
    check_what_is_judged(RunConfig.model_validate(asks))
    asks[group] = {**asks.get(group, {}), name: True}
    config = RunConfig.model_validate(asks)
    with pytest.raises(ConfigError, match=f"HF-103.*2, and {group}.{name}, which judges single"):
        run_simulation(config, tmp_path / "out", command="", console=Console(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_of_split_codes_the_same_rows_are_judged_as_of_whole_ones(tmp_path):
    ceilings = {}
    for variants in (1, 3):
        out = tmp_path / str(variants)
        config = RunConfig.model_validate(
            {
                "data": {"cohort": {**SMALL.model_dump(), "code_variants": variants}},
                "model": {"name": "tiny", "layers": 1, "width": 16, "heads": 2, "ffn": 16},
                "train": {"max_steps": 1},
                "tokens": {"k_min": 5},
                "federation": {"rounds": 1},
                "evaluation": {"bootstraps": 2},
                "simulation": {"baselines": False, "arms": ["federated"]},
            }
        )
        found = run_simulation(config, out, command="", console=Console(quiet=True)).rows
        ceilings[variants] = {
            (row.arm, row.subset, row.metric): (row.value, row.n_subjects)
            for row in found
            if row.arm in ("ceiling", "reachable") and not np.isnan(row.value)
        }
    assert ceilings[1] == ceilings[3] != {}
