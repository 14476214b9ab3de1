"""Encoded updates over the engine and over enrolled sites: close, resumed, counted, on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from healthfm_client.site.site_home import SiteHome
from healthfm_client.transport.site_array_records import to_record
from healthfm_core.arrays import ArrayDict
from healthfm_core.federation import protocol
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.parameter_groups import group_names, group_of
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.transport.array_records import read
from healthfm_simulations.engine import run_federation
from tests import enrolled
from tests import three_numbers as small

HALF: dict[str, Any] = {"uplink": "int8", "top_k": 0.5}
"""So much is left out that without error feedback the model would go elsewhere."""
CODECS: list[dict[str, Any]] = [{"uplink": name} for name in ("fp16", "bf16", "int8")]


def same_bits(one, other) -> None:
    assert set(one) == set(other)
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_a_run_with_a_codec_ends_where_the_plain_one_does(tmp_path: Path, codec: dict) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    plain, coded = (
        run_federation(small.config(rounds=5, **more), nodes, folder, apps=small.apps())
        for folder, more in [(tmp_path / "plain", {}), (tmp_path / "run", {"codec": codec})]
    )
    assert [row["answered"] for row in coded.history] == [["a", "b", "c"]] * 5
    assert set(coded.parameters) == set(plain.parameters)
    for name, array in coded.parameters.items():
        np.testing.assert_allclose(array, plain.parameters[name], atol=0.02)
    name = "backbone.w"
    assert coded.parameters[name].tobytes() != plain.parameters[name].tobytes(), "it is encoded"


@pytest.mark.parametrize("until", [1, 2, 4])
def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, until: int) -> None:
    config = small.config(rounds=6, fraction=0.7, codec=HALF)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    run_federation(config, nodes, run, apps=small.apps(), until=until)
    resumed = run_federation(config, nodes, run, apps=small.apps(), resume=True)
    same_bits(whole.parameters, resumed.parameters)


def test_a_round_that_is_asked_for_twice_starts_from_the_residual_before_it(tmp_path: Path) -> None:
    """The coordinator dies after the sites trained round 3 and before its checkpoint was whole."""
    config = small.config(rounds=4, codec=HALF)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    run_federation(config, nodes, run, apps=small.apps(), until=3)
    (run / "checkpoints" / "round-0003.json").unlink()
    resumed = run_federation(config, nodes, run, apps=small.apps(), resume=True)
    same_bits(whole.parameters, resumed.parameters)


def test_without_what_was_left_out_before_the_model_goes_elsewhere(tmp_path: Path) -> None:
    """The residuals are lost between any two rounds, as if each site's disk were."""
    config = small.config(rounds=4, codec=HALF)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    for until in (1, 2, 3, 4):
        cut = run_federation(config, nodes, run, apps=small.apps(), resume=True, until=until)
        for file in run.glob("sites/*/residuals/*/round-*"):
            file.unlink()
    assert [row["answered"] for row in cut.history] == [["a", "b", "c"]] * 4
    assert not np.array_equal(cut.parameters["backbone.w"], whole.parameters["backbone.w"])


class Recorded(small.ClientWork):
    """Training whose true updates a test can look at."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.true: dict[tuple[str, int], ArrayDict] = {}

    def train_round(self, parameters, data, study, order, private=None, drift=None):
        """Train, and remember."""
        result = super().train_round(parameters, data, study, order, private, drift)
        self.true[data["name"], order.round] = dict(result.update)
        return result


def orders_to(grid: enrolled.Wire, node: int) -> list[dict[str, Any]]:
    """Orders of the rounds; the last one, for held-out people, asks for no update."""
    orders = [
        json.loads(str(m.content.config_records[protocol.ORDER]["json"]))
        for m in grid.sent
        if m.metadata.message_type == protocol.TRAIN and m.metadata.dst_node_id == node
    ]
    return [order for order in orders if not order.get("held_out")]


def sent_by(grid: enrolled.Wire, node: int) -> dict[int, ArrayDict]:
    """Round → what a node sent, decoded."""
    sent = {}
    for reply in grid.back:
        if reply.metadata.message_type != protocol.TRAIN or reply.metadata.src_node_id != node:
            continue
        if protocol.ARRAYS not in reply.content.array_records:
            continue  # what a site tells of its held-out people
        received = read(reply.content.array_records[protocol.ARRAYS])
        weights = reply.content.metric_records[protocol.WEIGHTS]
        groups = {
            group: names for group, names in group_names(small.SHAPES).items() if group in weights
        }
        decoded = Compressor("int8", 0.5).decode(groups, small.SHAPES, received)
        sent[int(reply.metadata.group_id)] = dict(decoded)
    return sent


def test_of_an_update_that_was_not_counted_no_more_is_lost_than_itself(tmp_path: Path) -> None:
    """In round 3 the coordinator refuses site b's update: its weight is too large."""
    study, sites = enrolled.three(tmp_path)
    work = Recorded(misbehave={"b": "weight"}, round_=3)
    grid = enrolled.Wire(sites, work)
    store = enrolled.run(grid, study, tmp_path / "run", rounds=6, codec=HALF)
    assert [row["answered"] for row in store.history()][2] == ["a", "c"]
    counted = [order.get("counted") for order in orders_to(grid, 2)]
    assert [None if one is None else set(one.values()) for one in counted] == [
        *(None, {1}, {2}, {2}, {4}, {5})
    ]
    assert set(counted[1]) == {"backbone", "ehr", "head/next_visit"}, "of its own groups alone"
    (folder,) = (SiteHome(sites[1].home).state_folder / "residuals").iterdir()
    from safetensors.numpy import load_file

    residual = load_file(folder / "round-0006.safetensors")
    sent = sent_by(grid, 2)
    for name, left in residual.items():
        kept = [number for number in range(1, 7) if number != 3]
        all_sent = sum(sent[number][name] for number in kept)
        all_true = sum(work.true["b", number][name] for number in kept)
        np.testing.assert_allclose(all_sent + left, all_true, atol=1e-5)
    assert any(np.abs(left).max() > 1e-3 for left in residual.values())


def test_scoring_sends_zeros_and_keeps_nothing(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path, metrics=["tuning_*", "loss_*"])

    class Scoring(small.ClientWork):
        def train_round(self, parameters, data, study, order, private=None, drift=None):
            result = super().train_round(parameters, data, study, order, private, drift)
            zeros = {n: a if order.train else 0 * a for n, a in result.update.items()}
            metrics = {**result.metrics, "tuning_auroc": 0.5}
            return type(result)(zeros, result.weights, metrics, 0.5)

    grid = enrolled.Wire(sites, Scoring())
    store = enrolled.run(
        grid, study, tmp_path / "run", codec=HALF, early_stopping={"monitor": "tuning_auroc"}
    )
    assert store.choice() is not None
    updates = [m for m in grid.back if protocol.ARRAYS in m.content.array_records]
    arrays = read(updates[-1].content.array_records[protocol.ARRAYS])
    assert not arrays["backbone/int8"].any()
    for site in sites:
        (folder,) = (SiteHome(site.home).state_folder / "residuals").iterdir()
        assert max(path.name for path in folder.iterdir()) == "round-0003.safetensors"


def test_the_egress_log_has_the_codes_that_left_with_their_bytes(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = enrolled.Wire(sites)
    enrolled.run(grid, study, tmp_path / "run", codec={"uplink": "int8"})
    log = SiteHome(sites[1].home).log()
    assert log.verify() == 6, "an agreement and an introduction, three rounds, held-out people"
    line = next(entry for entry in log.entries() if entry["what"] == protocol.TRAIN)
    arrays = line["records"]["arrays"]["arrays"]
    groups = {"backbone", "ehr", "head/next_visit"}
    assert set(arrays) == {f"{group}/{part}" for group in groups for part in ("int8", "scales")}
    assert (arrays["backbone/int8"]["type"], arrays["backbone/int8"]["bytes"]) == ("|i1", 3)
    assert {entry["bytes"] for entry in arrays.values()} <= {3, 4, 6}
    for site in sites:
        (folder,) = (SiteHome(site.home).state_folder / "residuals").iterdir()
        assert folder.stat().st_mode & 0o77 == 0


class Hostile(enrolled.Wire):
    """Site b answers training with arrays of its own."""

    def __init__(self, nodes: list[enrolled.Enrolled], arrays: ArrayDict) -> None:
        super().__init__(nodes)
        self._arrays = arrays

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        if message.metadata.message_type == protocol.TRAIN and message.metadata.dst_node_id == 2:
            reply.content[protocol.ARRAYS] = to_record(self._arrays)
        return reply


PLAIN = {
    name: np.zeros(shape, np.float32)
    for name, shape in small.SHAPES.items()
    if group_of(name) in {"backbone", "ehr", "head/next_visit"}
}


def encoded(codec: str, factor: float = 0.0) -> ArrayDict:
    groups = group_names(PLAIN)
    ones = {name: np.full(a.shape, factor, np.float32) for name, a in PLAIN.items()}
    return Compressor(codec).encode(groups, ones, {}, 0).arrays


@pytest.mark.parametrize(
    ("arrays", "codec", "reason"),
    [
        (PLAIN, "int8", "it has no backbone/int8"),
        (encoded("fp16"), "int8", "it has no backbone/int8"),
        (encoded("int8"), "none", "parameters are missing"),
        (encoded("int8", 1e9), "int8", "the norm of group backbone exceeds 100"),
        (encoded("int8", 3e38), "int8", "the norm of group"),
        (
            {**encoded("int8"), "backbone/scales": np.array([np.nan], np.float32)},
            "int8",
            "a scale that is no positive number",
        ),
    ],
)
def test_an_update_that_is_not_as_the_run_says_costs_its_site_alone(
    tmp_path: Path, arrays: ArrayDict, codec: str, reason: str
) -> None:
    study, sites = enrolled.three(tmp_path)
    store: RunStore = enrolled.run(
        Hostile(sites, arrays), study, tmp_path / "run", codec={"uplink": codec}
    )
    history = store.history()
    assert [row["answered"] for row in history] == [["a", "c"]] * 3
    assert reason in history[0]["set_aside"]["b"]
    assert all(np.isfinite(array).all() for array in store.result().parameters.values())


def test_an_update_that_is_not_finite_stays_at_its_site_and_out_of_its_residual(
    tmp_path: Path,
) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = enrolled.Wire(sites, small.ClientWork({"b": "nan"}, 2))
    store = enrolled.run(grid, study, tmp_path / "run", codec={"uplink": "int8"})
    assert [row["answered"] for row in store.history()] == [[*"abc"], [*"ac"], [*"abc"]]
    assert "HF-726" in store.history()[1]["set_aside"]["b"]
    (folder,) = (SiteHome(sites[1].home).state_folder / "residuals").iterdir()
    assert {file.name[:10] for file in folder.iterdir()} == {"round-0001", "round-0003"}
