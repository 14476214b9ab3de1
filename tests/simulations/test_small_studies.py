"""Studies in which little is common enough to be counted."""

from __future__ import annotations

import pytest

from healthfm_core.config.compose import compose
from healthfm_core.errors import ProtocolError
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.__main__ import main
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.sites import prepare_sites
from tests.training.test_loop import SETTINGS

QUICK = [*SETTINGS, "rounds=1", "federation.evaluate_every=0", "evaluation.bootstraps=5"]


def nodes(config, folder):
    return [NodeSpec(s.name, [(s.path, s.modalities)]) for s in prepare_sites(config, folder)]


def test_too_few_people_at_every_site_end_in_a_sentence_that_names_k_min(tmp_path):
    config = compose([*QUICK, "tokens.k_min=20"])
    with pytest.raises(ProtocolError, match=r"HF-406.*at least tokens.k_min=20 people of any site"):
        run_federation(config, nodes(config, tmp_path / "sites"), tmp_path / "run")


def test_a_modality_of_too_few_people_is_left_out_and_the_others_are_learned(tmp_path):
    config = compose([*QUICK, "tokens.k_min=32"])
    stores = [store for node in nodes(config, tmp_path / "sites") for store in node.stores]
    pooled = NodeSpec("pooled", stores, pooled=True)
    result = run_federation(config, [pooled], tmp_path / "run")
    assert "ehr" in result.study.modalities
    events = RunStore(tmp_path / "run", keep=1).events()
    (said,) = [event for event in events if event["event"] == "modalities left out"]
    assert (said["modalities"], said["k_min"]) == (["genomics", "wearable"], 32)


def test_a_federation_without_any_code_ends_in_a_report_that_says_so(tmp_path, capsys):
    worn = ["data.cycle_modalities=[[wearable]]", "data.cohort.without_wearable=0"]
    worn += ["simulation.arms=[federated]"]
    assert main([*QUICK, *worn, f"out={tmp_path / 'out'}"]) == 0
    assert "no baseline is fitted" in " ".join(capsys.readouterr().out.split())
