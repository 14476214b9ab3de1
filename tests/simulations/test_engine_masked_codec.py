"""Masked sums in few bytes: a ring of 16 bits up, changes of the model in 8 bits down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.errors import RunError
from healthfm_core.federation import protocol
from healthfm_core.federation.secure import codecs
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.transport.array_records import read
from healthfm_simulations.engine import run_federation
from tests import enrolled
from tests import three_numbers as small
from tests.simulations.test_engine_codec import same_bits
from tests.simulations.test_engine_downlink import spoil
from tests.simulations.test_engine_masked import UNBOUNDED, close, five_sites

FEW: dict[str, Any] = {
    "aggregation": {"secure": {"enabled": True, "ring_bits": 16, "clip": 10.0}},
    "codec": {"downlink": "int8"},
}


@pytest.fixture(autouse=True)
def _groups_of_few_numbers_are_coarse_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "FEWEST_NUMBERS", 1)


def test_a_run_ends_where_the_plain_one_does(tmp_path: Path) -> None:
    nodes = five_sites(tmp_path / "sites")
    plain = run_federation(UNBOUNDED, nodes, tmp_path / "plain", apps=small.apps())
    few = run_federation(small.config(**FEW), nodes, tmp_path / "few", apps=small.apps())
    assert [row["answered"] for row in few.history] == [[*"abcde"]] * 3
    assert close(few, plain, 0.03)
    assert not close(few, plain, 1e-5), "it is coarse"


@pytest.mark.parametrize("round_", [1, 3])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, round_: int) -> None:
    nodes, config = five_sites(tmp_path / "sites"), small.config(**FEW)
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    stopped = small.apps({"d": "interrupt"}, round_=round_)
    with pytest.raises(RunError, match="HF-705"):
        run_federation(config, nodes, tmp_path / "run", apps=stopped)
    resumed = run_federation(config, nodes, tmp_path / "run", resume=True, apps=small.apps())
    same_bits(resumed.parameters, whole.parameters)


@pytest.mark.parametrize("how", ["lost", "another"])
def test_a_site_that_lost_its_model_gets_it_whole_in_the_same_sum(tmp_path: Path, how: str) -> None:
    nodes, config = five_sites(tmp_path / "sites"), small.config(**FEW)
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    run_federation(config, nodes, run, apps=small.apps(), until=2)
    spoil(sorted((run / "sites").iterdir())[1], how)
    resumed = run_federation(config, nodes, run, apps=small.apps(), resume=True)
    assert [row["answered"] for row in resumed.history] == [[*"abcde"]] * 3
    sent_whole = [e for e in RunStore(run, 1).events() if e["event"] == "model sent whole"]
    assert [event["round"] for event in sent_whole] == [3]
    same_bits(resumed.parameters, whole.parameters)


def test_what_travels_is_16_bits_a_number_and_counted(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = enrolled.Wire(sites)
    store = enrolled.run(grid, study, tmp_path / "run", **FEW)
    masked = [
        reply.content.array_records[protocol.ARRAYS]
        for reply in grid.back
        if reply.metadata.message_type == protocol.TRAIN and reply.metadata.group_id == "2"
    ]
    assert len(masked) == 3
    assert {read(record)["update_16"].dtype.name for record in masked} == {"uint16"}
    told = store.history()[1]["bytes"]
    assert told["up"] == sum(len(array.data) for r in masked for array in r.values())
    sent = [
        message.content.array_records[protocol.ARRAYS]
        for message in grid.sent
        if message.metadata.message_type == protocol.TRAIN and message.metadata.group_id == "2"
    ]
    assert told["down"] == sum(len(array.data) for r in sent for array in r.values())
