"""What an arm leaves out is said where its row stands."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from healthfm_simulations.arms.arm_training import TrainedArm
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.arm_remarks import remarks_of
from healthfm_simulations.scoring.model_scores import EVERYTHING, Model
from healthfm_simulations.sites import SimulatedSite
from tests.simulations.labelled_stores import write_hospitals

BOTH = "ehr+wearable"
NO_SITE = {"": "no modality is at every site"}


def model(*modalities: str) -> Model:
    return Model(SimpleNamespace(modalities=modalities), {})


@pytest.fixture(scope="module")
def sites(tmp_path_factory) -> tuple[SimulatedSite, ...]:
    paths = write_hospitals(tmp_path_factory.mktemp("hospitals"))
    return tuple(SimulatedSite(path.name, path, None) for path in paths)


@pytest.fixture
def own(sites) -> CrossValidationFold:
    return CrossValidationFold("fold-0", sites, sites, "held_out")


EACH = {"north": model("ehr", "wearable"), "south": model("ehr"), "west": model("wearable")}


def test_an_arm_without_a_model_says_why(own):
    trained = {"federated": TrainedArm({"": model("ehr", "wearable")})}
    trained["fedavg"] = TrainedArm(absent=NO_SITE)
    assert remarks_of(trained, own, EVERYTHING) == {"fedavg": "no modality is at every site"}


def test_a_model_of_fewer_modalities_says_which(own):
    trained = {"fedavg": TrainedArm({"": model("ehr")})}
    assert remarks_of(trained, own, EVERYTHING) == {"fedavg": "its model reads ehr alone"}
    assert remarks_of(trained, own, "ehr") == {}
    none = {"fedavg": "its model reads ehr alone, and is shown none"}
    assert remarks_of(trained, own, "wearable") == none


def test_single_modality_models_behind_both_are_counted(own, sites):
    trained = {"local": TrainedArm(EACH), "ensemble": TrainedArm(EACH)}
    read = "1 of ehr, 1 of ehr + wearable, 1 of wearable"
    for inputs in (EVERYTHING, BOTH):
        assert remarks_of(trained, own, inputs) == {
            "local": f"each person is asked by the own site's model: {read}",
            "ensemble": f"the sites' models together: {read}",
        }
    newcomers = CrossValidationFold("fold-0", sites[:2], sites[2:], None)
    said = remarks_of({"local": TrainedArm(EACH)}, newcomers, BOTH)
    assert said == {"local": f"the mean over the sites' models: {read}"}


def test_models_that_all_read_what_is_shown_need_no_remark(own):
    assert remarks_of({"local": TrainedArm(EACH)}, own, "ehr") == {}


def test_a_site_without_a_model_is_named_with_the_reason(own):
    local = TrainedArm({"north": EACH["north"]}, absent={"south": "too few", "west": "too few"})
    assert remarks_of({"local": local}, own, "ehr") == {"local": "no model at 2 sites: too few"}
    alone = TrainedArm(EACH, absent={"east": "no code"})
    assert remarks_of({"local": alone}, own, "ehr") == {"local": "no model at east: no code"}


def test_zeros_in_place_of_what_is_absent_are_read(own):
    imputed = TrainedArm({"": model("ehr")}, shown_fold=lambda inputs: own)
    assert remarks_of({"imputed": imputed}, own, EVERYTHING) == {}
