"""Experiments: their plans, their runs, and the tables written into a README."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from healthfm_core.errors import ConfigError, RunError
from healthfm_core.evaluation import MetricRow
from healthfm_core.evaluation.analyses.missing_inputs import CorruptionRow
from healthfm_core.evaluation.analyses.smoothness import SmoothnessRow
from healthfm_core.evaluation.analyses.subgroups import SubgroupRow
from healthfm_core.evaluation.metrics.metric_rows import write_parquet
from healthfm_simulations.experiments import readme_results
from healthfm_simulations.experiments.__main__ import main
from healthfm_simulations.experiments.experiment_plan import (
    ExperimentPlan,
    catalogue,
    find,
    read_plan,
    slug,
)
from healthfm_simulations.experiments.experiment_runs import FinishedRun, RunStamp, is_finished
from healthfm_simulations.experiments.result_tables import arms_table, comparison_lines, site_lines
from healthfm_simulations.experiments.secondary_rows import secondary_rows
from healthfm_simulations.scoring.metrics_by_site import SiteRows
from healthfm_simulations.scoring.seed_intervals import t_interval
from tests.simulations.test_simulate_command import SMALL

PLAN = {
    "question": "Does a longer walk tire more than a short one?",
    "time": "no time",
    "seeds": 2,
    "base": [*SMALL, "rounds=1", "simulation.arms=[federated,local]"],
    "variants": {"short": [], "long": ["train.max_steps=3"]},
    "arms": ["federated", "linear"],
    "comparisons": [
        {"of": {"variant": "long"}, "to": {"variant": "short"}},
        {"to": {"arm": "local"}, "kind": "share"},
    ],
    "by_site": {},
}


def plan_in(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
    return folder


def row(arm: str, value: float, subset: str = "new_onset") -> MetricRow:
    return MetricRow(arm, "next_visit", subset, "average_precision", value, 0.0, 1.0, 30)


def finished(variant: str, seed: int, **values: float) -> FinishedRun:
    rows = tuple(row(arm, value) for arm, value in values.items())
    sites = tuple(
        SiteRows(name, ("ehr",), people, (row("federated - local", gain),))
        for name, people, gain in (("a", 300, 0.02 * (seed + 1)), ("b", 100, -0.01))
    )
    return FinishedRun(variant, seed, rows, sites, RunStamp("2026-01-02", 60.0, "abc"))


TWO = [
    finished("short", 0, federated=0.10, local=0.10, linear=0.05),
    finished("long", 0, federated=0.20, local=0.10),
    finished("short", 1, federated=0.12, local=0.20, linear=0.07),
    finished("long", 1, federated=0.18, local=0.20),
]


def test_an_interval_over_two_seeds_is_student_s():
    mean, low, high = t_interval([1.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 12.7062, 2 + 12.7062), abs=1e-3)


def test_the_table_has_a_line_per_variant_and_arm_that_has_numbers():
    lines = arms_table(ExperimentPlan(**PLAN), TWO)
    assert lines[0] == "| variant | arm | AP, new onsets |"
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| short", "federated"],
        ["| short", "linear"],
        ["| long", "federated"],
    ]
    assert ".110 [−.017, .237]" in lines[2]


def test_variants_are_compared_seed_by_seed_and_arms_within_a_variant():
    """Long minus short: .10 and .06; federated over local in the long one: 200 % and 90 %."""
    lines = comparison_lines(ExperimentPlan(**PLAN), TWO)
    assert lines[0].startswith("- long: federated − short: federated")
    assert "+.080" in lines[0]
    assert lines[2].startswith("- long: federated as a share of local")
    assert "145 %" in lines[2]
    assert len(lines) == 3


def test_a_gain_over_chance_is_a_share_of_another_s_gain_of_a_metric_whose_chance_is_known():
    gain = {"of": {"arm": "linear"}, "kind": "gain", "subset": "overall", "metric": "auroc"}
    plan = ExperimentPlan(**{**PLAN, "variants": {"short": []}, "comparisons": [gain]})
    aurocs = [("federated", 0.9), ("linear", 0.7)]
    rows = [replace(row(arm, v, "overall"), metric="auroc") for arm, v in aurocs]
    runs = [replace(finished("short", seed), rows=tuple(rows)) for seed in (0, 1)]
    (line,) = comparison_lines(plan, runs)
    assert "gains over chance" in line
    assert "50 %" in line
    with pytest.raises(ValidationError, match=r"chance is \.5"):
        ExperimentPlan(**{**PLAN, "comparisons": [{**gain, "metric": "average_precision"}]})


def test_chance_of_another_metric_is_what_an_arm_has_that_ranks_by_chance():
    """Of the way from .05 to .10 and from .06 to .12, a half and a fifth."""
    gain = {"of": {"arm": "linear"}, "kind": "gain", "chance": "marginal"}
    plan = ExperimentPlan(**{**PLAN, "variants": {"short": []}, "comparisons": [gain]})
    runs = [
        finished("short", 0, federated=0.10, linear=0.075, marginal=0.05),
        finished("short", 1, federated=0.12, linear=0.072, marginal=0.06),
        finished("short", 2, federated=0.12, linear=0.075),  # chance is not known there
    ]
    (line,) = comparison_lines(plan, runs)
    assert "gains over chance" in line
    assert ": 35 % [" in line


def test_a_seed_that_only_one_side_has_is_no_pair():
    lines = comparison_lines(ExperimentPlan(**PLAN), TWO[:3])
    assert lines[0].endswith("+.100")


def test_sites_are_ranked_by_size_and_those_that_gain_are_counted():
    lines = site_lines(ExperimentPlan(**PLAN).by_site, ExperimentPlan(**PLAN), TWO)
    assert lines[2].startswith("| short | smallest | 100 | −.010")
    assert lines[2].endswith("| 0 of 2 |")
    assert lines[3].startswith("| short | largest | 300 | +.030")
    assert lines[4].startswith("| short | all | 100 to 300 | +.010 [−.054, +.074]")
    assert lines[4].endswith("| 2 of 4 |")


def test_groups_and_spoilt_wearing_are_rows_with_subsets_of_their_own(tmp_path):
    group = SubgroupRow("ancestry", "G1", "federated", "auroc", 0.7, 0.6, 0.8, 40, 25, False)
    hidden = SubgroupRow("ancestry", "G2", "", "", None, None, None, None, None, True)
    write_parquet(tmp_path / "subgroups.parquet", [group, hidden])
    spoilt = CorruptionRow("federated", "removed", 0.5, "auroc", float("nan"), 0.1, 0.3, 40)
    write_parquet(tmp_path / "corruption.parquet", [spoilt])
    smooth = SmoothnessRow(
        "federated", 0.1, 0.05, 0.2, 3.0, 2.0, 4.0, 40, "", "auroc", 0.6, 0.0, 1.0
    )
    write_parquet(tmp_path / "smoothness.parquet", [smooth])
    found = secondary_rows(tmp_path, "next_visit")
    assert [(row.subset, row.task) for row in found] == [
        ("ancestry G1", "next_visit"),
        ("wearing removed 0.5", "next_visit"),
        ("overall", "smoothness"),
        ("overall", "smoothness"),
    ]
    assert [(row.metric, row.value, row.low) for row in found[2:]] == [
        ("step", 0.1, 0.05),
        ("leap", 3.0, 2.0),
    ]
    assert (found[0].value, found[0].n_subjects) == (0.7, 40)
    assert math.isnan(found[1].value)
    assert secondary_rows(tmp_path / "nothing", "next_visit") == []


def test_a_column_and_a_comparison_may_speak_of_one_site_alone():
    columns = [{"site": "a"}, {"site": "nowhere"}]
    comparisons = [{"of": {"variant": "long"}, "to": {"variant": "short"}, "site": "a"}]
    plan = ExperimentPlan(**{**PLAN, "columns": columns, "comparisons": comparisons,
                   "arms": ["federated - local"]})  # fmt: skip
    lines = arms_table(plan, TWO)
    assert "AP, new onsets, a | AP, new onsets, nowhere" in lines[0]
    assert lines[2].startswith("| short | federated − local | .030 [")
    assert lines[2].endswith("| – |")
    assert comparison_lines(plan, TWO) == []  # no arm of that name at the site


def test_rows_of_a_further_task_are_not_taken_for_the_run_s_own():
    further = replace(row("federated", 0.9), task="within 365 days")
    runs = [replace(one, rows=(*one.rows, further)) for one in TWO]
    columns = [{}, {"task": "within 365 days"}]
    lines = arms_table(ExperimentPlan(**{**PLAN, "columns": columns}), runs)
    assert "| AP, new onsets | AP, new onsets, within 365 days |" in lines[0]
    assert lines[2].startswith("| short | federated | .110 [")
    assert "| .900 [.900, .900] |" in lines[2]


def test_days_may_have_a_geometric_mean_and_nothing_else():
    """5 and 20 days are half and twice 10; the interval is 10 · 2^±12.7."""
    days = [
        replace(one, rows=(row("federated", value, "layer 0 shortest"),))
        for one, value in zip(TWO[::2], (5.0, 20.0), strict=True)
    ]
    days = [replace(one, rows=(replace(one.rows[0], metric="days"),)) for one in days]
    column = {"subset": "layer 0 shortest", "metric": "days", "mean": "geometric"}
    lines = arms_table(ExperimentPlan(**{**PLAN, "columns": [column]}), days)
    assert lines[2].startswith("| short | federated | 10.0 [.0, 66")
    with pytest.raises(ValidationError, match="always above 0"):
        ExperimentPlan(**{**PLAN, "columns": [{"mean": "geometric"}]})


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = plan_in(tmp_path_factory.mktemp("walks") / "walking")
    out = folder.parent / "out"
    assert main([str(folder), "--out", str(out)]) == 0
    return folder, out


def test_a_run_writes_the_table_with_how_it_came_about(ran):
    folder, out = ran
    text = (folder / "README.md").read_text()
    assert text.startswith("# walking\n\nDoes a longer walk")
    assert "`healthfm-experiment walking` · 20" in text
    assert "in 4 runs · seeds 0 to 1" in text
    values = [
        next(r for r in json.loads((out / "long" / f"seed-{s}" / "metrics.json").read_text())
             if (r["arm"], r["subset"], r["metric"])
             == ("federated", "new_onset", "average_precision"))["value"]
        for s in (0, 1)
    ]  # fmt: skip
    mean = f"{sum(values) / 2:.3f}"[1:]
    assert f"| long | federated | {mean} [" in text


def test_a_finished_run_is_not_repeated_and_hand_written_words_stay(ran, capsys):
    folder, out = ran
    file = folder / "README.md"
    before = [p.stat().st_mtime_ns for p in sorted(out.glob("*/*/report.html"))]
    file.write_text("**Answer.** By hand.\n" + file.read_text() + "\nMore by hand.\n")
    text = file.read_text()
    capsys.readouterr()
    assert main([str(folder), "--out", str(out)]) == 0
    assert [p.stat().st_mtime_ns for p in sorted(out.glob("*/*/report.html"))] == before
    assert file.read_text() == text
    assert "ready in" not in capsys.readouterr().out


def test_fewer_seeds_than_planned_are_printed_and_not_written(ran, capsys):
    folder, out = ran
    before = (folder / "README.md").read_text()
    assert main([str(folder), "--out", str(out), "--seeds", "1"]) == 0
    assert "in 2 runs · seed 0" in capsys.readouterr().out
    assert (folder / "README.md").read_text() == before


def test_changed_settings_do_not_mix_with_what_was_run(ran, capsys):
    _, out = ran
    other = plan_in(out.parent / "other", base=[*PLAN["base"], "train.lr=0.1"])
    assert main([str(other), "--out", str(out)]) == RunError.exit_code
    assert "HF-702" in capsys.readouterr().err


def test_a_run_made_before_a_setting_was_there_stands(ran):
    folder, out = ran
    file = out / "short" / "seed-0" / "config.yaml"
    text = file.read_text()
    before = yaml.safe_load(text)
    del before["simulation"]["joins"]
    file.write_text(yaml.safe_dump(before))
    assert is_finished(file.parent, read_plan(folder).config("short", 0))
    file.write_text("seed: [\n")
    with pytest.raises(RunError, match="HF-702"):
        is_finished(file.parent, read_plan(folder).config("short", 0))
    file.write_text(text)


def test_what_is_finished_is_tabulated_without_running_anything(ran, tmp_path, capsys):
    folder, out = ran
    part = tmp_path / "part"
    shutil.copytree(out / "short", part / "short")
    shutil.copytree(out / "long" / "seed-1", part / "long" / "seed-1")
    other = tmp_path / "walking"
    shutil.copytree(folder, other)
    assert main([str(other), "--out", str(part), "--finished"]) == 0
    text = (other / "README.md").read_text()
    assert "in 3 runs" in text
    assert "with fewer seeds: long 1." in text
    assert "ready in" not in capsys.readouterr().out
    assert main([str(other), "--out", str(tmp_path / "empty"), "--finished"]) == RunError.exit_code
    assert "HF-701" in capsys.readouterr().err


def test_by_site_rows_hold_paired_differences_of_sites_with_enough_people(tmp_path):
    changes = {"base": [*PLAN["base"], "evaluation.k_subgroup=6"], "seeds": 1}
    folder = plan_in(tmp_path / "sites", variants={"one": []}, comparisons=[], **changes)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "one" / "seed-0" / "by_site.json").read_text())
    assert found
    assert {r["n_subjects"] for one in found for r in one["rows"]} <= set(range(6, 161))
    assert all("federated - local" in {r["arm"] for r in one["rows"]} for one in found)


@pytest.mark.parametrize(
    ("changes", "code", "tells"),
    [
        ({"variants": {}}, "HF-102", "variants"),
        ({"sedes": 3}, "HF-101", "sedes"),
        ({"seeds": "many"}, "HF-102", "seeds"),
        ({"base": ["train.lrr=1"]}, "HF-101", "train.lr"),
        ({"comparisons": [{"of": {"variant": "tall"}}]}, "HF-103", "tall"),
        ({"comparisons": [{}]}, "HF-103", "itself"),
    ],
)
def test_a_wrong_plan_is_one_sentence(tmp_path, capsys, changes, code, tells):
    folder = plan_in(tmp_path / "wrong", **changes)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == ConfigError.exit_code
    said = capsys.readouterr().err.strip()
    assert code in said
    assert tells in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


def test_an_unknown_experiment_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"HF-104.*modality_aware"):
        read_plan(find("no_such"))


def test_a_plan_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "experiment.yaml").write_text("question: [\n")
    with pytest.raises(ConfigError, match=r"HF-102.*experiment\.yaml"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    "text", ["", readme_results.BEGIN, f"{readme_results.END}\n{readme_results.BEGIN}"]
)
def test_a_readme_without_its_markers_is_refused_before_anything_runs(tmp_path, text, capsys):
    folder = plan_in(tmp_path / "unmarked")
    (folder / "README.md").write_text(f"By hand.\n{text}\n")
    assert main([str(folder), "--out", str(tmp_path / "out")]) == ConfigError.exit_code
    assert "HF-102" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", catalogue(), ids=lambda folder: folder.name)
def test_every_experiment_of_the_catalogue_composes_and_has_a_place_for_its_results(folder):
    plan = read_plan(folder)
    readme_results.check_markers(folder / "README.md")
    assert (folder / "README.md").is_file()
    assert len({slug(variant) for variant in plan.variants}) == len(plan.variants)


def test_without_a_name_the_catalogue_is_listed(capsys):
    assert main([]) == 0
    assert "modality_aware" in capsys.readouterr().out


def test_a_variant_starts_from_the_model_of_an_earlier_one(tmp_path, capsys):
    task = ["evaluation.task=return_within_30_days", "train.objectives.next_visit=0"]
    task += ["train.objectives.label=1", "evaluation.forgetting=true", "train.trainable=heads"]
    folder = plan_in(
        tmp_path / "plan",
        seeds=1,
        base=[*SMALL, "rounds=1", "simulation.arms=[federated]"],
        variants={"body": [], "head": task},
        starts={"head": "body"},
        comparisons=[],
        by_site=None,
    )
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    assert (tmp_path / "out" / "body" / "seed-0" / "model" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / "head" / "seed-0" / "model").exists()
    rows = json.loads((tmp_path / "out" / "head" / "seed-0" / "metrics.json").read_text())
    values = {
        row["arm"]: row["value"]
        for row in rows
        if (row["task"], row["subset"], row["metric"]) == ("next_visit_after", "overall", "auroc")
    }
    assert values["federated"] == values["started_from"]  # a head alone forgets nothing
    assert values["federated - started_from"] == 0


@pytest.mark.parametrize("starts", [{"long": "nothing"}, {"long": "short"}, {"short": "short"}])
def test_a_variant_starts_from_no_later_one_and_from_no_other(tmp_path, starts):
    with pytest.raises(ConfigError, match="HF-103"):
        read_plan(plan_in(tmp_path, starts=starts))
