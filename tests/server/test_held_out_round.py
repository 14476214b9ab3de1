"""After the last round sites judge the model, by their own policies; who is silent is left out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from healthfm_core.config.privacy import PrivacyConfig
from healthfm_core.config.run import RunConfig
from healthfm_core.federation import contracting, protocol
from healthfm_core.federation.protocol import RoundOrder
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.held_out_round import PHASE
from healthfm_server.run_folder.held_out_file import HELD_OUT_FILE, HeldOutTold
from healthfm_server.study_setup.contract_signer import ContractSigner
from tests import enrolled
from tests import three_numbers as small


def told(folder: Path) -> HeldOutTold:
    found = HeldOutTold.read(folder)
    assert found is not None
    return found


def asked(grid: enrolled.Wire) -> list[Message]:
    trained = [m for m in grid.sent if m.metadata.message_type == protocol.TRAIN]
    return [m for m in trained if m.metadata.group_id == PHASE]


def test_each_site_tells_what_its_policy_lets_out_of_the_last_model(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    sites[1].home.joinpath("site.yaml").write_text("metrics: [loss_*, held_out/overall/auroc]\n")
    sites[2].home.joinpath("site.yaml").write_text("metrics: [loss_*]\n")
    grid = enrolled.Wire(sites)
    store = enrolled.run(grid, study, tmp_path / "run")
    found = told(store.folder)
    assert (found.round, found.asked, found.set_aside) == (3, ("a", "b", "c"), {})
    result = store.result()
    assert result is not None
    model = float(result.parameters["backbone.w"].mean())
    assert found.metrics["a"]["held_out/overall/auroc"] == pytest.approx(abs(model - 1.0))
    assert found.metrics["a"]["held_out/secret"] == 20, "nothing of fewer people is told"
    assert found.metrics["b"] == {"held_out/overall/auroc": pytest.approx(abs(model - 2.0))}
    assert found.metrics["c"] == {}


def test_the_stricter_threshold_holds_and_few_people_are_not_counted(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path, k_min=1)
    sites[0].home.joinpath("site.yaml").write_text("k_min: 10\nmetrics: [held_out/*]\n")
    config: dict[str, Any] = {"evaluation": {"k_subgroup": 7}}
    store = run(enrolled.Wire(sites), study, tmp_path / "run", **config)
    metrics = told(store.folder).metrics
    assert metrics["a"]["held_out/secret"] == 10
    assert metrics["b"]["held_out/secret"] == 7
    assert metrics["a"]["held_out/overall/n_subjects"] == 10


def run(grid: enrolled.Wire, study: Path, folder: Path, **changes: Any) -> Any:
    """Run with other settings than those of the federation."""
    original = small.config

    def changed(**federation: Any) -> RunConfig:
        raw = original(**federation).model_dump(mode="json")
        for group, values in changes.items():
            raw[group] = {**raw[group], **values}
        return RunConfig.model_validate(raw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "config", changed)
        return enrolled.run(grid, study, folder)


def test_nobody_is_asked_where_the_run_says_so_nor_where_sums_are_secure(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = enrolled.Wire(sites)
    store = run(grid, study, tmp_path / "plain", evaluation={"at_sites": False})
    assert (asked(grid), HeldOutTold.read(store.folder)) == ([], None)
    grid = enrolled.Wire(sites)
    secure = {"aggregation": {"secure": {"enabled": True, "min_sites": 2}}}
    store = enrolled.run(grid, study, tmp_path / "secure", **secure)
    assert len(store.history()) == 3
    assert (asked(grid), HeldOutTold.read(store.folder)) == ([], None)


@pytest.mark.parametrize("of_site", [True, False])
def test_a_site_with_private_training_tells_nothing(tmp_path: Path, of_site: bool) -> None:
    study, sites = enrolled.three(tmp_path, k_min=1)
    dp = PrivacyConfig(mode="dp", noise_multiplier=4.0)
    if of_site:
        rules = "privacy: {mode: dp, epsilon: 100.0, ledger: ledger.jsonl}\n"
        sites[1].home.joinpath("site.yaml").write_text(rules)
        store = enrolled.run(enrolled.Wire(sites), study, tmp_path / "run")
    else:
        store = enrolled.run(enrolled.Wire(sites), study, tmp_path / "run", dp)
    metrics = told(store.folder).metrics
    assert metrics["b"] == {}
    assert bool(metrics["a"]) is of_site


class Changed(enrolled.Wire):
    """Sends a held-out order in place of a round's, as a coordinator would that was taken over."""

    def __init__(self, sites: list[enrolled.Enrolled], study: Path, round_: int) -> None:
        super().__init__(sites)
        self.round = round_
        self.study = study

    def change(self, message: Message) -> None:
        """Write another order, with the study's own signature."""
        if message.metadata.message_type != protocol.TRAIN:
            return
        record = message.content.config_records[protocol.ORDER]
        raw = json.loads(str(record["json"]))
        if raw["round"] != 1:
            return
        order = RoundOrder.from_json(
            json.dumps({**raw, "train": False, "held_out": True, "round": self.round})
        )
        fields = {"json": order.to_json(), "study": str(record["study"])}
        arrays = message.content.array_records[protocol.ARRAYS]
        digests = {name: _sha256(arrays[name].data) for name in arrays}
        signer = ContractSigner.of(self.study, "run")
        site = str(record[contracting.FOR_SITE])
        for key, value in signer.to_train(fields, digests, site, 60.0).items():
            record[key] = value


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def refusals(grid: enrolled.Wire) -> set[int]:
    return {reply.error.code for reply in grid.back if reply.has_error()}


def test_a_site_refuses_a_judgement_that_its_contract_does_not_have(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = Changed(sites, study, round_=5)
    with pytest.raises(Exception, match="HF-403"):
        run(grid, study, tmp_path / "run", evaluation={"at_sites": False})
    assert refusals(grid) == {814}
    grid = Changed(sites, study, round_=1)
    with pytest.raises(Exception, match="HF-403"):
        run(grid, study, tmp_path / "again")
    assert refusals(grid) == {814}, "it is asked after the last round alone"


def test_a_site_tells_nothing_of_its_own_in_a_run_of_secure_sums(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = Changed(sites, study, round_=5)
    secure = {"aggregation": {"secure": {"enabled": True, "min_sites": 2}}}
    with pytest.raises(Exception, match="HF-61"):
        enrolled.run(grid, study, tmp_path / "run", **secure)
    assert refusals(grid) == {501}
    assert not [
        r
        for r in grid.back
        if r.has_content()
        and protocol.METRICS in r.content
        and r.metadata.message_type == protocol.TRAIN
    ]


class Silent(enrolled.Wire):
    """One site's answer to the judgement never comes; another's is no record."""

    def pull_messages(self, message_ids: Any) -> Any:
        for reply in super().pull_messages(message_ids):
            if reply.metadata.group_id == PHASE and reply.metadata.src_node_id == 2:
                continue
            if reply.metadata.group_id == PHASE and reply.metadata.src_node_id == 3:
                del reply.content[protocol.METRICS]
            yield reply


def test_a_run_ends_well_without_the_sites_that_tell_nothing(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    store = enrolled.run(Silent(sites), study, tmp_path / "run")
    found = told(store.folder)
    assert set(found.metrics) == {"a"}
    assert found.set_aside["b"] == "it did not answer in time"
    assert "cannot be read" in found.set_aside["c"]
    noted = [e for e in store.events() if e["event"] == "held-out people not judged"]
    assert {event["site"] for event in noted} == {"b", "c"}


def test_a_run_is_complete_when_it_is_judged_and_one_that_was_killed_before_asks_again(
    tmp_path: Path,
) -> None:
    study, sites = enrolled.three(tmp_path)
    order = RunOrder.give(tmp_path / "runs", "first", small.config(deadline_s=60.0), None)
    store = enrolled.run(enrolled.Wire(sites), study, order.folder)
    assert order.is_complete()
    first = told(store.folder)
    (store.folder / HELD_OUT_FILE).unlink()
    assert not order.is_complete(), "the coordinator was killed while it was judged"
    enrolled.run(enrolled.Wire(sites), study, order.folder)
    assert order.is_complete()
    assert told(store.folder) == first
    store.forget_after(2)
    assert HeldOutTold.read(store.folder) is None, "it was of a model that is not there any more"


def test_the_model_that_was_chosen_is_the_one_that_is_judged(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    monitor = {"monitor": "tuning_auroc"}

    class Best(small.ClientWork):
        """Does best in the tuning of round 2, so that round 1's model is chosen."""

        def train_round(self, parameters, data, study, order, private=None, drift=None):
            result = super().train_round(parameters, data, study, order, private, drift)
            score = {2: 0.9}.get(order.round, 0.5)
            metrics = {**result.metrics, "tuning_auroc": score}
            return small.RoundResult(result.update, result.weights, metrics)

    grid = enrolled.Wire(sites, Best())
    store = enrolled.run(grid, study, tmp_path / "run", early_stopping=monitor)
    choice = store.choice()
    assert choice is not None
    assert choice.round == 1
    assert told(store.folder).round == 1
