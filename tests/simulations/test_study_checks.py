"""A study that its stores cannot answer is refused before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import add_labels
from healthfm_core.errors import ConfigError, StoreError
from healthfm_core.training import SiteData
from healthfm_simulations.__main__ import main
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.sites import prepare_sites
from healthfm_simulations.study_checks import check_study
from healthfm_simulations.tuning.search_units import SearchUnits
from healthfm_simulations.tuning.tune_plan import read_tune_plan
from tests.simulations.labelled_stores import DEVICE, HOLDS, NOW_US, TASK, write_hospitals
from tests.training.test_loop import study_of

LABEL = [f"evaluation.task={TASK}", "train.objectives.label=1", "train.objectives.next_visit=0"]


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory) -> list[Path]:
    return write_hospitals(tmp_path_factory.mktemp("hospitals"))


def settings(stores: list[Path], *more: str) -> list[str]:
    return ["data=stores", f"data.stores=[{','.join(map(str, stores))}]", "model=tiny", *more]


def refusal(stores: list[Path], *more: str) -> ConfigError:
    config = compose(settings(stores, *more))
    sites = prepare_sites(config, stores[0].parent / "sites")
    with pytest.raises(ConfigError) as caught:
        check_study(config, sites, cross_validation_folds(config, sites))
    return caught.value


def test_a_study_that_can_be_answered_is_not_refused(hospitals, tmp_path):
    config = compose(settings(hospitals, *LABEL, f"tokens.device={DEVICE}"))
    sites = prepare_sites(config, tmp_path)
    check_study(config, sites, cross_validation_folds(config, sites))


def test_a_misspelt_task_is_told_with_the_nearest(hospitals):
    error = refusal(hospitals, *LABEL, "evaluation.task=bakc")
    assert (error.number, error.do) == (102, f"Write evaluation.task={TASK}")
    error = refusal(hospitals, *LABEL, "train.label_task=bak")
    assert (error.where, error.do) == ("train.label_task=bak", f"Write train.label_task={TASK}")


def test_without_any_label_it_is_said_how_they_are_made(tmp_path):
    stores = write_hospitals(tmp_path, tasks=dict.fromkeys(HOLDS, ""))
    error = refusal(stores, *LABEL)
    assert "have no labels" in str(error)
    assert "healthfm-client labels" in error.do


def test_a_site_without_the_labels_is_named(tmp_path):
    stores = write_hospitals(tmp_path, tasks={"south": "other"})
    assert "south has no such labels" in str(refusal(stores, *LABEL))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_labels_that_are_all_the_same_are_refused(hospitals, tmp_path, split):
    stores = [tmp_path / path.name for path in hospitals]
    for store, before in zip(stores, hospitals, strict=True):
        shutil.copytree(before, store)
        everyone, same = SiteStore.open(store).subjects(), SiteStore.open(store).subjects(split)
        outcome = np.where(np.isin(everyone, same), False, np.arange(len(everyone)) % 2 == 0)
        outcome[:12] |= ~np.isin(everyone[:12], same)
        labels = label_table(everyone, np.full(len(everyone), NOW_US), outcome)
        add_labels(store, TASK, labels, overwrite=True)
    error = refusal(stores, *LABEL)
    what = "trained on" if split == "train" else "tested"
    assert error.seen == f'the answer to all labels is "no" among the people who are {what}'


def test_what_is_judged_is_trained(hospitals):
    error = refusal(hospitals, f"evaluation.task={TASK}")
    assert error.do.startswith("Write train.objectives.label=1")
    asked = ["train.objectives.next_visit=0", "train.objectives.time_to_event=1"]
    assert "train.objectives.next_visit is 0" in str(refusal(hospitals, *asked))


def test_a_misspelt_device_is_told_with_those_there_are(hospitals):
    error = refusal(hospitals, *LABEL, "tokens.device=perday")
    assert (error.where, error.do) == ("tokens.device=perday", f"Write tokens.device={DEVICE}")
    assert "have no devices" in str(refusal(hospitals[1:2], *LABEL, "tokens.device=x"))


def test_a_site_that_may_use_nothing_it_holds_is_named(hospitals):
    error = refusal(hospitals, *LABEL, "data.modalities.south=[wearable]")
    assert error.where == "data.modalities.south"
    assert "it leaves south nothing: its store holds ehr" in error.seen
    dealt = refusal(hospitals, *LABEL, "data.cycle_modalities=[[ehr],[wearable],[ehr]]")
    assert dealt.where == "data.cycle_modalities"


def test_inputs_that_no_site_holds_are_refused(hospitals):
    error = refusal(hospitals, *LABEL, "evaluation.inputs=[ehr,ehr+genomics]")
    assert error.where == "evaluation.inputs=ehr+genomics"
    with pytest.raises(ConfigError, match=r"HF-102.*'ehr.wearables' was given"):
        compose(settings(hospitals, *LABEL, "evaluation.inputs=[ehr+wearables]"))


@pytest.mark.parametrize(
    "overrides",
    [["train.objectives.next_visit=0"], ["train.objectives.label=1"]],
    ids=["nothing is asked", "a label without a name"],
)
def test_objectives_that_cannot_be_learned_are_refused_by_every_command(overrides):
    with pytest.raises(ConfigError, match=r"HF-103.*train\.objectives"):
        compose(overrides)


def test_a_refused_run_leaves_its_folder_free_for_the_corrected_command(
    hospitals, tmp_path, capsys
):
    out = tmp_path / "run"
    wrong = settings(hospitals, *LABEL, "evaluation.task=bakc", f"out={out}")
    assert main(wrong) == 2
    assert not out.exists()
    assert "HF-102" in capsys.readouterr().err


def test_a_search_for_settings_is_checked_too(hospitals, tmp_path):
    overrides = tuple(settings(hospitals, *LABEL, "evaluation.task=bakc"))
    plan = read_tune_plan("network", {})
    with pytest.raises(ConfigError, match="HF-102"):
        SearchUnits.prepare(plan, compose(overrides), overrides, tmp_path)


def test_a_deployed_site_without_the_label_refuses_to_prepare(hospitals, tmp_path):
    config = compose(settings(hospitals, *LABEL, "tokens.k_min=2"))
    stores = [SiteStore.open(path) for path in hospitals]
    study = study_of(config, stores)
    SiteData.load(stores[:1], study)
    other = write_hospitals(tmp_path, tasks={"north": "other"})
    with pytest.raises(StoreError, match=f"HF-208.*labels/{TASK}") as caught:
        SiteData.load([SiteStore.open(other[0])], study)
    assert "other" not in str(caught.value), "what else a site has labels of is its own affair"
    both = study_of(config.model_copy(update={"train": compose(LABEL[:2]).train}), stores)
    SiteData.load([SiteStore.open(other[0])], both)
