"""Does my hospital gain? Measured at the site, with intervals; told what a person decides to."""

from __future__ import annotations

import json
import shutil

import pytest
from flwr.app import Context, RecordDict

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client import gain_at_site
from healthfm_client.__main__ import main
from healthfm_client.core_local_work import CoreLocalWork
from healthfm_client.joining_gain import FOLDER, NUMBERS, JoiningGain
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_client.site.site_home import SiteHome
from healthfm_core.evaluation import MetricRow
from healthfm_core.held_out.site_evaluation import GAIN, SiteEvaluation
from healthfm_core.held_out.train_alone import AloneModel
from healthfm_core.trained import TrainedModel
from healthfm_server.app import make_app
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.deploy.told_gains import take_gain, told_gains
from healthfm_server.registry.model_export import export_model
from healthfm_server.run_report.run_report import RunReport
from healthfm_server.study_setup.core_model_setup import CoreModelSetup
from healthfm_simulations.engine import NodeSpec
from healthfm_simulations.sites import prepare_sites
from tests import enrolled
from tests.held_out.test_held_out_people import CONFIG


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """A study of two real sites whose run has ended: its folder, the run, the sites' homes."""
    folder = tmp_path_factory.mktemp("gain")
    settings = StudySettings(study="heart", hosts=("127.0.0.1",))
    study = StudyFolder.create(folder / "study", settings)
    config = CONFIG.model_copy(
        update={
            "federation": CONFIG.federation.model_copy(update={"rounds": 2, "deadline_s": 600.0}),
            "train": CONFIG.train.model_copy(update={"max_steps": 2}),
        }
    )
    specs = [
        NodeSpec(one.name, ((one.path, None),)) for one in prepare_sites(config, folder / "cohort")
    ]
    homes = [
        enrolled.enrol(study.authority(), spec, number, k_min=2)
        for number, spec in enumerate(specs, start=1)
    ]
    order = RunOrder.give(study.runs, "first", config, None)
    grid = enrolled.Wire(homes, CoreLocalWork())
    request = {
        "config": config.model_dump_json(),
        "folder": str(order.folder),
        "study": str(study.path),
        "nodes": 2,
    }
    make_app(CoreModelSetup())(grid, Context(1, 0, {}, RecordDict(), request))
    order.note(order.status().__class__(state="finished"))
    sites = [SiteHome(home.home) for home in homes]
    for site, spec in zip(sites, specs, strict=True):
        site.write_settings(JoinSettings(stores=(StoreChoice(path=spec.stores[0][0]),)))
    return study, order, sites


def gain(site, *words):
    return main(["gain", "--site", str(site.path), *words])


def test_a_site_keeps_the_model_it_helped_to_train(deployment):
    _, order, sites = deployment
    for site in sites:
        (kept,) = site.finished_models()
        assert kept.name == "first"
        assert kept.study().config.federation.rounds == 2
    assert order.is_complete()


def test_it_says_with_intervals_whether_the_site_gains_and_tells_nobody(deployment, capsys):
    _, _, (site, _) = deployment
    logged = len(list(site.log().entries()))
    assert gain(site) == 0
    said = capsys.readouterr().out
    assert "The own model: 2 rounds on the site's" in said
    assert "average precision, new onsets" in said
    verdicts = ("gains by joining (", "own model is better", "is not shown: the interval holds 0")
    assert sum(one in said for one in verdicts) == 1
    assert "nothing of it has left this site" in said
    folder = site.finished_models().find("first").folder / FOLDER
    text = (folder / "report.html").read_text()
    assert "Who gains by joining" in text
    kept = [path for path in folder.parent.rglob("*") if path.is_file()]
    assert len(kept) > 4
    assert not [path.name for path in kept if path.stat().st_mode & 0o077], "for its owner alone"
    numbers = json.loads((folder / NUMBERS).read_text())
    low, high = (numbers[f"gain/overall/auroc_{end}"] for end in ("low", "high"))
    assert low <= numbers["gain/overall/auroc"] <= high
    assert len(list(site.log().entries())) == logged, "nothing left"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.0011, 0.03, "This site gains by joining"),
        (-0.03, -0.0011, "own model is better"),
        (0.0002, 0.03, "is not shown"),
        (-0.03, -0.0002, "is not shown"),
        (-0.01, 0.02, "is not shown"),
    ],
)
def test_the_verdict_follows_the_interval_as_it_is_shown(deployment, low, high, verdict):
    study = deployment[2][0].finished_models().find("first").study()
    value = (low + high) / 2
    row = MetricRow(GAIN, "next_visit", "new_onset", "average_precision", value, low, high, 50)
    alone = AloneModel({}, 1, 1, {})
    found = JoiningGain(study, "first", alone, {}, SiteEvaluation((row,)), 50, 20)
    assert verdict in found.verdict()


class Gateway:
    """The study's route for it, without the wire between."""

    def __init__(self, study, name):
        self.study = study
        self.name = name
        self.bodies = []

    def __call__(self, home, route, body):
        assert route == "/v1/healthfm/gain"
        self.bodies.append(body)
        order = take_gain(self.study, self.name, json.dumps(body).encode())
        return {"run": order.name}


def test_what_is_told_is_what_the_policy_lets_out_is_logged_first_and_stands_in_the_report(
    deployment, capsys, monkeypatch
):
    study, order, (site, _) = deployment
    name = site.kit().site
    gateway = Gateway(study, name)
    monkeypatch.setattr(gain_at_site, "post_to_study", gateway)
    assert gain(site, "first") == 0
    site.policy.write_text("k_min: 2\nmetrics: [loss_*]\n")
    assert gain(site, "first", "--tell", "--yes") != 0
    assert "HF-501" in capsys.readouterr().err
    site.policy.write_text("k_min: 2\nmetrics: [gain/overall/*]\n")
    assert gain(site, "first", "--tell") == 0, "there is no terminal to ask at"
    assert "nothing was told" in capsys.readouterr().out
    assert gateway.bodies == []
    assert gain(site, "first", "--tell", "--yes") == 0
    (body,) = gateway.bodies
    assert {told.rpartition("/")[0] for told in body["metrics"]} == {"gain/overall"}
    last = list(site.log().entries())[-1]
    assert (last["what"], last["records"]["metrics"]["values"]) == ("gain", body["metrics"])
    site.policy.write_text("k_min: 2\n")
    assert told_gains(order.folder)[name] == body["metrics"]
    site.policy.write_text("metrics: [gain/*, own_model/*]\n")
    assert gain(site, "first", "--tell", "--yes") == 0
    values = RunReport.of(study, order).as_values()
    arms = {row["arm"] for row in values["site_held_out"][name]}
    assert arms == {"federated", "local", "federated - local"}
    site.policy.write_text("k_min: 2\n")


def test_a_site_with_private_training_tells_nothing_of_a_model_without_noise(deployment, capsys):
    _, _, (_, site) = deployment
    before = site.policy.read_text()
    site.policy.write_text("privacy: {mode: dp, epsilon: 100.0, ledger: ledger.jsonl}\n")
    assert gain(site, "--tell", "--yes") != 0
    assert "trained without noise" in capsys.readouterr().err
    site.policy.write_text(before)


def test_a_model_that_is_not_there_and_one_of_a_folder(deployment, capsys, tmp_path):
    _, order, (site, _) = deployment
    assert gain(site, "second") != 0
    assert "one of: first" in capsys.readouterr().err
    export_model(order.folder, tmp_path / "exported")
    assert TrainedModel.load(tmp_path / "exported").round == 2
    assert gain(site, "--model", str(tmp_path / "exported")) == 0
    assert "The shared model of run first" in capsys.readouterr().out, "it is of that run"
    (kept,) = site.finished_models()
    shutil.rmtree(kept.folder)
    assert gain(site, "--model", str(tmp_path / "exported")) == 0
    assert "The shared model of run exported" in capsys.readouterr().out, "as after secure sums"
    shutil.rmtree(kept.folder)
    model = TrainedModel.load(tmp_path / "exported")
    site.finished_models().keep(model.study, model.parameters, "first", kept.at)


BAD = [
    b"{",
    b"[]",
    b'{"study": "x"}',
    b'{"study": "x", "metrics": {"secret": 1}}',
    b'{"study": "x", "metrics": {"gain/a": NaN}}',
    b'{"study": "x", "metrics": {"gain/a": "1"}}',
    b'{"study": "x", "metrics": {"gain/a": true}}',
    json.dumps({"study": "x", "metrics": {f"gain/{n}": 1 for n in range(1001)}}).encode(),
    json.dumps({"study": "x", "metrics": {"gain/" + "x" * 200: 1}}).encode(),
]


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_gain_is_refused_and_nothing_is_written(deployment, data):
    study, order, (_, site) = deployment
    with pytest.raises(Exception, match="HF-831"):
        take_gain(study, site.kit().site, data)
    assert site.kit().site not in told_gains(order.folder)


def test_a_site_tells_of_runs_in_which_it_took_part_alone(deployment):
    study, order, (site, _) = deployment
    agreed = site.finished_models().find("first").study().hash
    body = json.dumps({"study": agreed, "metrics": {"gain/overall/auroc": 0.1}}).encode()
    with pytest.raises(Exception, match="HF-722"):
        take_gain(study, "stranger", body)
    other = json.dumps({"study": "0" * 64, "metrics": {"gain/overall/auroc": 0.1}}).encode()
    with pytest.raises(Exception, match="HF-722"):
        take_gain(study, site.kit().site, other)
    assert "stranger" not in told_gains(order.folder)
