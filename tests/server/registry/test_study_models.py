"""``healthfm-server model`` and ``export``: which model is in use, and what a hub reads of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_core.local_page.page_access import API
from healthfm_core.trained import TrainedModel
from healthfm_server.__main__ import main
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.registry.model_aliases import FILE, ModelAliases
from healthfm_simulations.engine import run_federation
from tests import three_numbers as small
from tests.page.made_study import judged, make_study, served_page
from tests.page.test_page_security import form_secret

SITES = {"north": (0.8, 300.0, 0.0), "south": (0.6, 100.0, 0.0)}


def train(study, name, seed=3, **federation):
    config = small.config(**federation).model_copy(update={"seed": seed})
    order = RunOrder.give(study.runs, name, config, None)
    sites = small.three_sites(study.path.parent / "sites")
    run_federation(config, sites, order.folder, apps=small.apps())
    order.note(replace(order.status(), state="finished"))
    judged(order, **SITES)
    return order


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    study = make_study(tmp_path_factory.mktemp("registry") / "study")
    train(study, "first")
    train(study, "second", seed=4, fraction=0.7)
    return study


@pytest.fixture
def study(made, tmp_path):
    return StudyFolder.open(Path(shutil.copytree(made.path, tmp_path / "study")))


def model(study, *words):
    return main(["model", *words, "--study", str(study.path)])


def test_an_alias_stands_for_one_model_and_every_move_is_in_the_log(study, capsys):
    assert model(study, "promote", "first", "production") == 0
    assert model(study, "promote", "second", "production") == 0
    said = capsys.readouterr().out
    assert "production is the model of second after round 3, no longer first's" in said
    assert model(study, "list") == 0
    listed = capsys.readouterr().out
    assert "second (production): finished, round 3; overall auroc 0.750 [" in listed
    assert "first: finished, round 3" in listed
    lines = [row for row in study.audit("test").newest(0) if "promoted" in row["event"]]
    assert [(row["run"], row["before"]) for row in lines] == [("second", "first"), ("first", None)]


def test_retired_the_alias_is_nobodys_and_the_model_stays(study, capsys):
    model(study, "promote", "first", "production")
    assert model(study, "retire", "production") == 0
    assert ModelAliases(study.path, study.runs).all() == {}
    assert model(study, "retire", "production") == 8
    assert "HF-733" in capsys.readouterr().err
    assert (study.runs / "first" / "checkpoints" / "round-0003.json").is_file()


def test_what_is_exported_by_its_alias_is_the_promoted_model_to_the_bit(study, tmp_path, capsys):
    model(study, "promote", "first", "production")
    words = ["export", "production", str(tmp_path / "model"), "--study", str(study.path)]
    assert main(words) == 0
    found = TrainedModel.load(tmp_path / "model")
    first = TrainedModel.load(exported(study, "first", tmp_path / "first"))
    second = TrainedModel.load(exported(study, "second", tmp_path / "second"))
    for name, array in found.parameters.items():
        assert array.tobytes() == first.parameters[name].tobytes()
    assert any(a.tobytes() != second.parameters[n].tobytes() for n, a in found.parameters.items())


def exported(study, name, folder, *more):
    assert main(["export", name, str(folder), "--study", str(study.path), *more]) == 0
    return folder


def test_a_model_that_was_exchanged_since_is_not_exported_as_the_promoted_one(
    study, tmp_path, capsys
):
    """Somebody put another run's checkpoints into the folder; its own marker fits its file."""
    model(study, "promote", "first", "production")
    shutil.rmtree(study.runs / "first" / "checkpoints")
    shutil.copytree(study.runs / "second" / "checkpoints", study.runs / "first" / "checkpoints")
    words = ["export", "production", str(tmp_path / "model"), "--study", str(study.path)]
    assert main(words) == 8
    assert "HF-703" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("state", ["running", "paused", "waiting"])
def test_a_run_that_goes_on_is_not_promoted(study, capsys, state):
    order = RunOrder.find(study.runs, "first")
    order.note(replace(order.status(), state=state))
    assert model(study, "promote", "first", "production") == 8
    said = capsys.readouterr().err
    assert "HF-732" in said
    assert state in said
    assert not (study.path / FILE).exists()


@pytest.mark.parametrize("alias", ["", "../x", "a/b", "x" * 64])
def test_an_alias_that_can_be_no_name_is_refused(study, alias):
    assert model(study, "promote", "first", alias) != 0
    assert not (study.path / FILE).exists()


def test_side_by_side_stand_what_differs_and_what_the_sites_found(study, capsys):
    model(study, "promote", "second", "candidate")
    capsys.readouterr()
    assert model(study, "compare", "first", "candidate") == 0
    lines = {line[:30].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["federation.fraction"][1:] == ["1.0", "0.7"]
    assert lines["seed"][1:] == ["3", "4"]
    assert "federation.rounds" not in lines, "it is the same in both"
    assert lines["judged by"][2:] == ["north,", "south", "north,", "south"]
    figures = " ".join(lines["overall: auroc"])
    assert figures.count("0.750 [") == 2
    assert figures.count("400 people") == 2


def test_models_of_which_other_sites_tell_are_said_to_be_judged_on_other_people(study, capsys):
    judged(RunOrder.find(study.runs, "second"), north=(0.9, 300.0, 0.0))
    assert model(study, "compare", "first", "second") == 0
    assert "their figures are of different people" in capsys.readouterr().out


def test_figures_of_another_round_are_not_told_of_this_model(study, capsys):
    """As after `--round`, or where a run went on after it had been judged."""
    told = json.loads((study.runs / "first" / "held-out.json").read_text())
    (study.runs / "first" / "held-out.json").write_text(json.dumps({**told, "round": 2}))
    model(study, "list", "--json")
    first, second = json.loads(capsys.readouterr().out)["models"]
    assert first["held_out"] == []
    assert second["held_out"]


def test_a_hub_reads_the_card(study, tmp_path):
    from huggingface_hub import ModelCard

    folder = exported(study, "first", tmp_path / "heart-model", "--license", "CC-BY-NC-4.0")
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.library_name == "healthfm"
    assert {"federated-learning", "ehr"} <= set(card.data.tags)
    results = {(r.dataset_name, r.metric_type): r for r in card.data.eval_results}
    auroc = results["held-out people of the sites, overall", "auroc"]
    assert (card.data.model_name, auroc.metric_value) == ("heart-model", 0.75)
    assert auroc.metric_name.startswith("AUROC [0.")
    for section in ("## Intended use", "It is no medical device", "no differential privacy"):
        assert section in card.text


def test_without_a_licence_none_is_stated_and_without_figures_none(study, tmp_path):
    (study.runs / "first" / "held-out.json").unlink()
    text = (exported(study, "first", tmp_path / "model") / "README.md").read_text("utf-8")
    _, front, _ = text.split("---\n", 2)
    assert set(yaml.safe_load(front)) == {"library_name", "tags"}


def test_an_export_of_an_earlier_round_has_no_figures_of_the_last_one(study, tmp_path):
    folder = exported(study, "first", tmp_path / "model", "--round", "2")
    assert "model-index" not in (folder / "README.md").read_text("utf-8")


def test_the_api_answers_the_models(study):
    model(study, "promote", "first", "production")
    with served_page(study) as page:
        viewer = page.bearer(study.tokens.add("ada", "viewer"))
        first, second = viewer.get(f"{API}/models").json()["models"]
    assert (first["run"], first["aliases"], second["aliases"]) == ("first", ["production"], [])
    assert first["held_out"][0]["n_subjects"] == 400


def aliases(study):
    return {name: each.run for name, each in ModelAliases(study.path, study.runs).all().items()}


def test_on_the_page_an_alias_is_given_moved_and_retired_and_noted_with_who_did_it(study):
    with served_page(study) as page:
        client = page.browser(study.tokens.add("eve", "coordinator"))
        shown = client.get("/models").text
        assert "0.750 [" in shown, "what the sites found, over both"
        for run in ("first", "second"):
            form = form_secret(client.get(f"/models/{run}/promote").text)
            client.post(f"/models/{run}/promote", data={"form": form, "alias": "production"})
            assert aliases(study) == {"production": run}
        assert "retire production" in client.get("/models").text
        assert client.post("/aliases/production/retire", data={}).status_code == 400
        form = form_secret(client.get("/aliases/production/retire").text)
        client.post("/aliases/production/retire", data={"form": form})
    assert aliases(study) == {}
    rows = [*study.audit("test").rows("model promoted"), *study.audit("test").rows("model retired")]
    assert [(row["run"], row["by"]) for row in rows] == [
        ("first", "eve"),
        ("second", "eve"),
        ("second", "eve"),
    ]


def test_on_the_page_what_cannot_be_an_alias_or_a_model_is_told(study):
    with served_page(study) as page:
        client = page.browser(study.tokens.add("eve", "coordinator"))
        form = form_secret(client.get("/models/first/promote").text)
        said = client.post("/models/first/promote", data={"form": form, "alias": "../up"})
        assert (said.status_code, "HF-810" in said.text) == (400, True)
        assert client.get("/models/nobody/promote").status_code == 404
        assert client.get("/aliases/nobody/retire").status_code == 404
        viewer = page.browser(study.tokens.add("ada", "viewer"))
        assert "promote" not in viewer.get("/models").text
        assert viewer.get("/models/first/promote").status_code == 403


def test_a_program_moves_an_alias(study):
    with served_page(study) as page:
        client = page.bearer(study.tokens.add("eve", "coordinator"))
        told = client.post(f"{API}/models/second/promote", json={"alias": "production"}).json()
        assert (told["alias"], told["run"], told["before"]) == ("production", "second", None)
        assert aliases(study) == {"production": "second"}
        assert client.post(f"{API}/models/second/promote", json={}).json()["code"] == "HF-831"
        assert client.post(f"{API}/aliases/production/retire").json()["run"] == "second"
        assert client.post(f"{API}/aliases/production/retire").status_code == 404
    assert aliases(study) == {}


def test_a_study_without_a_model_says_so(tmp_path):
    with served_page(make_study(tmp_path / "study")) as page:
        assert "No run has a model yet." in page.browser().get("/models").text
