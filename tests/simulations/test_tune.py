"""``healthfm-tune``: chosen on tuning people, the same after a kill, test people untouched."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

import tests.quiet_flower  # noqa: F401
from healthfm_core.config.compose import compose, packaged_configs
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, RunError
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.sites import SimulatedSite, prepare_sites
from healthfm_simulations.tuning.__main__ import main
from healthfm_simulations.tuning.chosen_settings import chosen_command, chosen_overrides
from healthfm_simulations.tuning.settings_search import SettingsSearch, best_of
from healthfm_simulations.tuning.stores_without_test_people import training_sites
from healthfm_simulations.tuning.trial_training import (
    TrainingUnit,
    TrialTraining,
    settings_of_trial,
)
from healthfm_simulations.tuning.tune_plan import TunePlan, read_tune_plan
from tests import three_numbers as small
from tests.simulations.test_engine_early_stopping import APPS, METRIC
from tests.simulations.test_simulate_command import SMALL

COHORT = [
    *SMALL,
    "rounds=3",
    "federation.evaluate_every=1",
    "data.cohort.subjects=120",
    "data.cohort.held_out=0.15",
]
PLAN = {
    "metric": "tuning_auroc",
    "space": {
        "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "train.batch_size": {"low": 8, "high": 32, "step": 8},
    },
    "trials": 3,
    "startup_trials": 1,
    "rungs": 1,
}


def plan_file(folder: Path, **changes: object) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
    return str(folder / "plan.yaml")


def trials_of(folder: Path) -> list[dict[str, object]]:
    return json.loads((folder / "trials.json").read_text())


def held_out(store: Path) -> set[int]:
    return {int(s) for s in SiteStore.open(store).subjects("held_out")}


# --- the whole command -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Four sites of a small cohort."""
    folder = tmp_path_factory.mktemp("stores")
    return [site.path for site in prepare_sites(compose(COHORT), folder)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, stores):
    """A finished search over stores, and its overrides."""
    folder = tmp_path_factory.mktemp("search")
    given = over(stores)
    assert main([*given, "--plan", plan_file(folder), "--out", str(folder / "out")]) == 0
    return folder / "out", given


def over(stores):
    listed = ",".join(map(str, stores))
    cohort = [item for item in COHORT if not item.startswith("data.cohort")]
    return ["data=stores", f"data.stores=[{listed}]", *cohort]


def test_a_search_leaves_its_trials_and_the_best_settings_as_command_and_file(
    finished, tmp_path, capsys
):
    folder, given = finished
    trials = trials_of(folder)
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    config = compose(given)
    first = trials[0]["values"]
    assert first == {"train.lr": config.train.lr, "train.batch_size": config.train.batch_size}
    best = max(t["score"] for t in trials if t["score"] is not None)
    again = main([*given, "--plan", plan_file(tmp_path), "--out", str(folder)])
    printed = capsys.readouterr().out
    assert again == 0
    assert f"{best:.4f}" in printed
    command = printed.strip().splitlines()[-1]
    chosen = compose(shlex.split(command)[1:])
    values = next(t["values"] for t in trials if t["score"] == best)
    assert {"train.lr": chosen.train.lr, "train.batch_size": chosen.train.batch_size} == values
    assert as_a_group_file(folder / "chosen.yaml", given, tmp_path) == chosen


def as_a_group_file(file, given, folder):
    """The configuration with the file as ``train=chosen``."""
    import shutil

    configs = folder / "configs"
    shutil.copytree(packaged_configs(), configs)
    shutil.copy(file, configs / "train" / "chosen.yaml")
    return compose([*given, "train=chosen"], configs)


def test_a_trial_is_gone_when_it_has_ended_and_more_trials_can_be_asked_for(
    finished, stores, tmp_path, monkeypatch
):
    folder, given = finished
    assert list((folder / "trials").glob("*")) == []
    before = trials_of(folder)
    search = [*given, "--plan", plan_file(tmp_path), "--out", str(folder)]
    assert main([*search, "--trials", "4"]) == 0
    assert trials_of(folder)[:3] == before
    assert len(trials_of(folder)) == 4


def test_other_settings_in_the_same_folder_are_refused(finished, tmp_path, capsys):
    folder, given = finished
    search = ["--plan", plan_file(tmp_path), "--out", str(folder)]
    assert main([*given, "train.weight_decay=0.5", *search]) == 8
    assert "HF-702" in capsys.readouterr().err


# --- test people -----------------------------------------------------------------------------


def test_what_the_test_people_s_records_say_changes_nothing(finished, stores, tmp_path):
    """The same search at stores whose held-out people all have one code and absurd values."""
    import shutil

    poisoned = []
    for store in stores:
        copy = tmp_path / "stores" / store.name
        shutil.copytree(store, copy)
        for file in (copy / "data" / "held_out").glob("*.parquet"):
            table = pq.read_table(file)
            codes = pa.array(["POISON"] * table.num_rows, pa.string())
            at = table.column_names.index("code")
            table = table.set_column(at, table.field("code"), codes.cast(table["code"].type))
            at = table.column_names.index("numeric_value")
            absurd = pa.array(np.full(table.num_rows, 1e30), table["numeric_value"].type)
            pq.write_table(table.set_column(at, table.field("numeric_value"), absurd), file)
        poisoned.append(copy)
    out = tmp_path / "out"
    assert main([*over(poisoned), "--plan", plan_file(tmp_path), "--out", str(out)]) == 0
    assert trials_of(out)[:3] == trials_of(finished[0])[:3]


def test_nobody_who_is_scored_is_in_the_stores_that_train(stores, tmp_path):
    config = compose([*COHORT])
    sites = prepare_sites(config, tmp_path)
    ((*training,),) = training_sites(config, sites, tmp_path / "without")
    assert [site.name for site in training] == [site.name for site in sites]
    for site, own in zip(sites, training, strict=True):
        gone, store = held_out(site.path), SiteStore.open(own.path)
        assert gone
        tables = [store.events(), *(store.wearable(device) for device in store.devices)]
        tables += [store.labels(task) for task in store.tasks]
        for table in tables:
            assert not gone & set(table["subject_id"].to_pylist())
        assert not gone & set(store.subjects().tolist())
        before = SiteStore.open(site.path)
        for split in ("train", "tuning"):
            assert store.events(split).equals(before.events(split))


def test_training_without_the_test_people_is_the_same_training_to_the_bit(tmp_path):
    config = compose([*COHORT, "rounds=2"])
    sites = prepare_sites(config, tmp_path)
    (training,) = training_sites(config, sites, tmp_path / "without")
    found = []
    for name, those in (("whole", sites), ("without", training)):
        nodes = [NodeSpec(site.name, ((site.path, site.modalities),)) for site in those]
        result = run_federation(config, nodes, tmp_path / name)
        found.append({name: array.tobytes() for name, array in result.parameters.items()})
    assert found[0] == found[1]


def test_where_whole_sites_are_scored_the_others_alone_train(stores, tmp_path):
    given = [*over(stores), "evaluation.protocol=leave_sites_out", "evaluation.folds=2"]
    config = compose(given)
    sites = prepare_sites(config, tmp_path)
    folds = training_sites(config, sites, tmp_path / "without")
    assert [len(fold) for fold in folds] == [2, 2]
    assert not {site.path for site in folds[0]} & {site.path for site in folds[1]}


# --- kills -----------------------------------------------------------------------------------

KILLED = """
import sys
from healthfm_simulations.engine import federation_run
from healthfm_simulations.tuning.__main__ import main

if len(sys.argv) > 1 and sys.argv[1] == "hang":  # in the second trial, after its first round
    rounds = iter(range(100))
    def hanging(self, current, *rest):
        before = collect(self, current, *rest)
        if next(rounds) == 4:
            print("now", flush=True)
            sys.stdin.read()
        return before
    from healthfm_server.transport.clear import ClearTransport
    collect, ClearTransport.collect = ClearTransport.collect, hanging
code = main(sys.argv[2:])
opened = [name for name in sys.modules if name.startswith("healthfm_simulations.scoring")]
assert opened == [], opened
raise SystemExit(code)
"""


def test_a_search_killed_in_a_trial_goes_on_and_ends_with_the_same_trials(
    finished, repository, tmp_path
):
    _, given = finished
    out = tmp_path / "out"
    search = [*given, "--plan", plan_file(tmp_path), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, "hang", *search],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=repository,
    )
    assert process.stdout is not None
    until = time.monotonic() + 300
    while process.stdout.readline().strip() != "now":
        assert time.monotonic() < until
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [folder.name for folder in (out / "trials").iterdir()] == ["0001"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "on", *search],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=repository,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert trials_of(out) == trials_of(finished[0])[:3]


# --- the search, with federations that are numbers -------------------------------------------


class KnownTraining:
    """Trials whose values are known: the rate, less what is missing to the last round."""

    rounds = 6

    def __init__(self, folder: Path, values: Mapping[str, float], log: list[int]) -> None:
        self.folder, self._values, self._log = folder, values, log

    def rungs(self, count: int) -> list[int]:
        return [2, 4, 6]

    def value_after(self, round_: int) -> float:
        self._log.append(round_)
        rate = self._values["train.lr"]
        if rate > 0.5:
            raise RunError(726, where="round 2", seen="loss_label is not finite")
        if rate < 0:
            raise KeyboardInterrupt
        return rate * round_


def known_search(folder: Path, choices: list[float], **changes: object) -> SettingsSearch:
    space = {"train.lr": {"choices": choices}}
    plan = TunePlan.model_validate({**PLAN, "trials": len(choices), "space": space, **changes})
    log: list[int] = []
    said: list[str] = []

    def training(number: int, values: tuple[str, ...]) -> KnownTraining:
        rate = float(values[0].partition("=")[2])
        return KnownTraining(folder / "trials" / str(number), {"train.lr": rate}, log)

    search = SettingsSearch(plan, (), folder, training, said.append)
    object.__setattr__(search, "log", log)
    object.__setattr__(search, "said", said)
    return search


def test_a_trial_below_the_others_median_is_given_up_at_a_rung(tmp_path):
    choices = [0.5, 0.4, 0.3, 0.2, 0.1]
    search = known_search(tmp_path, choices, trials=14, startup_trials=2)
    trials = search.run()
    assert len(trials) == 14
    given_up = [trial for trial in trials if trial.ended == "pruned"]
    assert given_up
    for trial in given_up:
        assert trial.score is None
        assert trial.rounds < 6
        assert trial.values["train.lr"] < 0.5
    best = best_of(trials)
    assert best is not None
    assert best.score == pytest.approx(6 * max(t.values["train.lr"] for t in trials))
    whole = known_search(tmp_path / "w", choices, trials=14, startup_trials=2, pruner="none")
    (tmp_path / "w").mkdir()
    assert {trial.ended for trial in whole.run()} == {"finished"}


def test_a_trial_that_diverges_is_told_and_never_chosen(tmp_path):
    trials = known_search(tmp_path, [0.9, 0.3], trials=8).run()
    ended = {trial.values["train.lr"]: trial.ended for trial in trials}
    assert ended[0.9] == "diverged"
    best = best_of(trials)
    assert best is not None
    assert best.values["train.lr"] == 0.3


def test_rungs_that_were_judged_before_a_kill_are_not_trained_again(tmp_path):
    class KilledError(Exception):
        pass

    search = known_search(tmp_path, [0.3, 0.2], trials=1)
    value_after = KnownTraining.value_after

    def killed(self, round_):
        if round_ == 4:
            raise KilledError
        return value_after(self, round_)

    KnownTraining.value_after = killed
    try:
        with pytest.raises(KilledError):
            search.run()
    finally:
        KnownTraining.value_after = value_after
    again = known_search(tmp_path, [0.3, 0.2], trials=1)
    (trial,) = again.run()
    assert again.log == [4, 6]
    assert trial.ended == "finished"


def sites_of(folder: Path, *pulls: float) -> tuple[SimulatedSite, ...]:
    nodes = [small.site(folder, f"s{i}", pull=pull) for i, pull in enumerate(pulls)]
    return tuple(SimulatedSite(node.name, node.stores[0][0], None) for node in nodes)


def test_a_trial_is_the_mean_of_its_seeds_and_folds_at_each_rung(tmp_path):
    config = settings_of_trial(small.config(rounds=8), METRIC)
    units = [
        TrainingUnit("a", config, sites_of(tmp_path / "a", 1.0, 2.0, 3.0)),
        TrainingUnit("b", config, sites_of(tmp_path / "b", 1.0, 1.0, 1.5)),
    ]
    both = TrialTraining(units, METRIC, tmp_path / "both", APPS)
    for rung in both.rungs(1):
        alone = [
            TrialTraining([unit], METRIC, tmp_path / unit.name, APPS).value_after(rung)
            for unit in units
        ]
        assert alone[0] != alone[1]
        assert both.value_after(rung) == pytest.approx(sum(alone) / 2)
    assert both.rungs(3) == [2, 4, 6, 8]
    assert both.rungs(40) == [2, 3, 4, 5, 6, 7, 8]


def test_a_metric_that_no_site_reports_ends_the_search_with_one_sentence(tmp_path):
    config = settings_of_trial(small.config(rounds=2), METRIC)
    unit = TrainingUnit("seed-0-fold-0", config, sites_of(tmp_path / "sites", 1.0, 2.0))
    training = TrialTraining([unit], METRIC, tmp_path / "trial", small.apps())
    with pytest.raises(RunError, match=r"HF-727.*round 2: no site reported tuning_auroc"):
        training.value_after(2)


def test_the_last_model_is_what_a_trial_is_judged_by_unless_the_run_chooses_its_best(tmp_path):
    nodes = small.three_sites(tmp_path / "sites")
    plain = settings_of_trial(small.config(rounds=8), METRIC)
    assert plain.federation.early_stopping.restore_best is False
    last = run_federation(plain, nodes, tmp_path / "last", apps=APPS)
    chooses = small.config(rounds=8, early_stopping={"monitor": METRIC})
    best = run_federation(settings_of_trial(chooses, METRIC), nodes, tmp_path / "best", apps=APPS)
    training = TrialTraining([], METRIC, tmp_path, APPS)
    assert training._of(last) == last.choice.scores[8]
    assert training._of(best) == max(best.choice.scores.values())
    assert training._of(best) > training._of(last)


# --- plans -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted((packaged_configs() / "tune").glob("*.yaml")))
def test_a_packaged_plan_can_be_read_and_its_command_composes(file):
    plan = read_tune_plan(file.stem, {"trials": None, "seeds": 3})
    assert plan.seeds == 3
    words = shlex.split(file.read_text().splitlines()[0].removeprefix("# "))
    assert words[0] == "healthfm-tune"
    assert words[-2:] == ["--plan", file.stem]
    config = compose(words[1:-2])
    assert plan.metric_of(config).startswith("tuning_")


@pytest.mark.parametrize(
    ("space", "number", "because"),
    [
        ({"train.learning_rate": {"low": 1, "high": 2}}, 103, "train.learning_rate"),
        ({"evaluation.task": {"choices": ["death"]}}, 103, "not searched"),
        ({"seed": {"low": 0, "high": 9}}, 103, "not searched"),
        ({"federation.early_stopping.patience": {"low": 1, "high": 9}}, 103, "not searched"),
        ({"train.lr": {"low": 2, "high": 1}}, 103, "low below high"),
        ({"train.lr": {"low": 0, "high": 1, "log": True}}, 103, "log wants low above 0"),
        ({"train.lr": {"low": 0, "high": 1, "choices": [1]}}, 103, "not both"),
        ({"train.lr": {"lowest": 1}}, 102, "lowest"),
        ({}, 102, "space"),
    ],
)
def test_a_plan_that_cannot_be_is_one_sentence(tmp_path, space, number, because):
    with pytest.raises(ConfigError) as caught:
        read_tune_plan(plan_file(tmp_path, space=space), {})
    assert caught.value.number == number
    assert because in str(caught.value)


def test_a_plan_that_is_not_there_names_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match=r"HF-104.*linear, memory, network"):
        read_tune_plan("nothing", {})


def test_without_optuna_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"HF-108.*pip install 'healthfm\[tune\]'"):
        known_search(tmp_path, [0.1]).run()


def test_the_chosen_command_replaces_what_was_given_and_leaves_out_what_stays():
    from healthfm_simulations.tuning.settings_search import FinishedTrial

    given = ["data=cohort", "train.lr=0.5", "model.memory=true"]
    values = {"train.lr": 0.0123, "model.memory": True, "train.batch_size": 16}
    trial = FinishedTrial(3, values, 0.7, 6, "finished")
    chosen = chosen_overrides(trial, compose(given))
    assert chosen == {"train.lr": 0.0123, "train.batch_size": 16}
    command = "healthfm-simulate data=cohort model.memory=true train.lr=0.0123 train.batch_size=16"
    assert chosen_command(given, chosen) == command


def test_tables_hold_only_people_by_split(stores):
    """The fixture is worth something: every store has people of all three splits."""
    for store in stores:
        splits = pq.read_table(store / "metadata" / "subject_splits.parquet")["split"]
        assert set(pc.unique(splits).to_pylist()) == {"train", "tuning", "held_out"}
