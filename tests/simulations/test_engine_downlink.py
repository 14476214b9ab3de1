"""The model goes down as a change of what the sites hold; whoever lacks that gets it whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from healthfm_client.site.site_home import SiteHome
from healthfm_core.federation import protocol, wire
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import run_federation
from tests import enrolled
from tests import three_numbers as small
from tests.simulations.test_engine_codec import orders_to, same_bits

DOWN: dict[str, Any] = {"downlink": "int8"}
BOTH: dict[str, Any] = {"uplink": "int8", "top_k": 0.5, "downlink": "int8"}


class Seeing(small.ClientWork):
    """Training that remembers the model it began with."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.began: dict[tuple[str, int], dict[str, np.ndarray]] = {}

    def train_round(self, parameters, data, study, order, private=None, drift=None):
        """Train, and remember."""
        self.began[data["name"], order.round] = {n: a.copy() for n, a in parameters.items()}
        return super().train_round(parameters, data, study, order, private, drift)


def train_orders(grid: enrolled.Wire, node: int) -> list[Message]:
    return [
        m
        for m in grid.sent
        if m.metadata.message_type == protocol.TRAIN and m.metadata.dst_node_id == node
    ]


@pytest.mark.parametrize("codec", ["fp16", "bf16", "int8"])
def test_a_run_ends_where_the_plain_one_does(tmp_path: Path, codec: str) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    plain, coded = (
        run_federation(small.config(rounds=6, **more), nodes, folder, apps=small.apps())
        for folder, more in [
            (tmp_path / "plain", {}),
            (tmp_path / "run", {"codec": {"downlink": codec}}),
        ]
    )
    for name, array in coded.parameters.items():
        np.testing.assert_allclose(array, plain.parameters[name], atol=0.02)
    assert any(
        array.tobytes() != plain.parameters[name].tobytes()
        for name, array in coded.parameters.items()
    )


def test_all_sites_of_a_round_train_from_the_bits_that_the_coordinator_keeps(
    tmp_path: Path,
) -> None:
    study, sites = enrolled.three(tmp_path)
    work = Seeing()
    grid = enrolled.Wire(sites, work)
    store = enrolled.run(grid, study, tmp_path / "run", rounds=5, codec=DOWN)
    references = [order.get("reference", 0) for order in orders_to(grid, 2)]
    assert references == [0, 1, 2, 3, 4]
    for number in range(1, 6):
        reference = store.checkpoints.load(number).reference
        for site in "abc":
            for name, array in work.began[site, number].items():
                assert array.tobytes() == reference[name].tobytes(), (site, number, name)
    last = store.checkpoints.load(5)
    before = store.checkpoints.load(4)
    for name, array in last.reference.items():
        np.testing.assert_allclose(array, before.parameters[name], atol=0.02)
    piece = train_orders(grid, 2)[1].content.array_records[protocol.ARRAYS]["backbone"]
    assert set(wire.unbundle(piece.data)) == {"backbone/int8", "backbone/scales"}


def test_the_first_model_comes_as_a_change_of_zeros_and_the_next_ones_bring_the_rest(
    tmp_path: Path,
) -> None:
    study, sites = enrolled.three(tmp_path)
    work = Seeing()
    grid = enrolled.Wire(sites, work)
    store = enrolled.run(grid, study, tmp_path / "run", rounds=3, codec=DOWN)
    first, second = orders_to(grid, 2)[:2]
    assert first["shapes"] == {
        "backbone.w": [3],
        "encoders.ehr.w": [2, 3],
        "heads.next_visit.w": [3, 1],
    }, "of its own groups alone"
    assert "shapes" not in second
    pieces = train_orders(grid, 2)[0].content.array_records[protocol.ARRAYS]
    assert set(wire.unbundle(pieces["backbone"].data)) == {"backbone/int8", "backbone/scales"}
    began = store.checkpoints.load(1).reference["backbone.w"]
    assert work.began["b", 1]["backbone.w"].tobytes() == began.tobytes()
    np.testing.assert_allclose(began, np.ones(3), atol=1 / 127)


def test_a_site_that_makes_another_model_of_the_first_change_gets_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, sites = enrolled.three(tmp_path)
    from healthfm_client.site import held_models

    right, calls = held_models.digests_by_group, iter(range(100))

    def once_wrong(groups, model):
        return {} if next(calls) == 1 else right(groups, model)

    monkeypatch.setattr(held_models, "digests_by_group", once_wrong)
    work = Seeing()
    store = enrolled.run(enrolled.Wire(sites, work), study, tmp_path / "run", codec=DOWN)
    assert [row["answered"] for row in store.history()] == [["a", "b", "c"]] * 3
    sent_whole = [
        (e["round"], e["site"]) for e in store.events() if e["event"] == "model sent whole"
    ]
    assert sent_whole == [(1, "b")]
    one, other = work.began["a", 1], work.began["b", 1]
    assert one["backbone.w"].tobytes() == other["backbone.w"].tobytes()


@pytest.mark.parametrize("until", [1, 2, 4])
@pytest.mark.parametrize("fraction", [1.0, 0.7])
def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, until: int, fraction: float) -> None:
    config = small.config(rounds=6, fraction=fraction, codec=BOTH)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    run_federation(config, nodes, run, apps=small.apps(), until=until)
    resumed = run_federation(config, nodes, run, apps=small.apps(), resume=True)
    same_bits(whole.parameters, resumed.parameters)


def test_a_round_that_is_asked_for_twice_gives_the_same_bits(tmp_path: Path) -> None:
    config = small.config(rounds=4, codec=BOTH)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    run_federation(config, nodes, run, apps=small.apps(), until=3)
    (run / "checkpoints" / "round-0003.json").unlink()
    resumed = run_federation(config, nodes, run, apps=small.apps(), resume=True)
    same_bits(whole.parameters, resumed.parameters)


def spoil(site: Path, how: str) -> None:
    """Lose a site's models, or change them."""
    for file in site.glob("models/*/round-*"):
        if how == "lost":
            file.unlink()
        elif how == "damaged":
            file.write_bytes(b"no model")
        else:
            arrays = {n: np.asarray(a + np.float32(1)) for n, a in load_file(file).items()}
            if how == "with a group less":
                arrays = {
                    n: np.asarray(a - 1) for n, a in arrays.items() if not n.startswith("backbone")
                }
            from safetensors.numpy import save_file

            save_file(arrays, file)


@pytest.mark.parametrize("how", ["lost", "damaged", "another", "with a group less"])
def test_a_site_that_lost_its_model_gets_it_whole_in_the_same_round(
    tmp_path: Path, how: str
) -> None:
    config = small.config(rounds=4, codec=DOWN)
    nodes = small.three_sites(tmp_path / "sites")
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    run = tmp_path / "run"
    run_federation(config, nodes, run, apps=small.apps(), until=2)
    site = sorted((run / "sites").iterdir())[1]
    spoil(site, how)
    resumed = run_federation(config, nodes, run, apps=small.apps(), resume=True)
    assert [row["answered"] for row in resumed.history] == [["a", "b", "c"]] * 4
    sent_whole = [e for e in RunStore(run, 1).events() if e["event"] == "model sent whole"]
    assert [event["round"] for event in sent_whole] == [3]
    same_bits(whole.parameters, resumed.parameters)


def test_a_site_that_missed_a_round_gets_the_model_whole(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    work = Seeing(misbehave={"b": "weight"}, round_=2)
    grid = enrolled.Wire(sites, work)
    enrolled.run(grid, study, tmp_path / "run", rounds=5, codec=DOWN)
    assert [order.get("reference", 0) for order in orders_to(grid, 2)] == [0, 1, 0, 3, 4]
    assert [order.get("reference", 0) for order in orders_to(grid, 1)] == [0, 1, 2, 3, 4]
    for number in range(1, 6):
        for name, array in work.began["b", number].items():
            assert array.tobytes() == work.began["a", number][name].tobytes()


def test_a_site_is_told_digests_of_its_own_groups_alone(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = enrolled.Wire(sites)
    enrolled.run(grid, study, tmp_path / "run", codec=DOWN)
    assert set(orders_to(grid, 2)[1]["digests"]) == {"backbone", "ehr", "head/next_visit"}
    assert "wearable" in orders_to(grid, 1)[1]["digests"]


class Refusing(enrolled.Wire):
    """The coordinator's change of the model reaches site b as something else, unsigned."""

    def change(self, message: Message) -> None:
        metadata = message.metadata
        if metadata.message_type != protocol.TRAIN or metadata.dst_node_id != 2:
            return
        order = json.loads(str(message.content.config_records[protocol.ORDER]["json"]))
        if order.get("reference"):
            piece = message.content.array_records[protocol.ARRAYS]["backbone"]
            parts = dict(wire.unbundle(piece.data))
            parts["backbone/int8"] = np.zeros(3, np.int8)
            piece.data = wire.bundle(parts)


def test_a_change_that_was_altered_on_the_way_is_refused(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    store = enrolled.run(Refusing(sites), study, tmp_path / "run", codec=DOWN)
    assert [row["answered"] for row in store.history()] == [[*"abc"], [*"ac"], [*"abc"]]
    assert "HF-814" in store.history()[1]["set_aside"]["b"]


def test_the_history_says_how_many_bytes_went_up_and_down(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = enrolled.Wire(sites)
    store = enrolled.run(grid, study, tmp_path / "run", codec=BOTH)
    up = sum(
        len(array.data)
        for reply in grid.back
        if reply.metadata.message_type == protocol.TRAIN and reply.metadata.group_id == "2"
        for array in reply.content.array_records[protocol.ARRAYS].values()
    )
    assert store.history()[1]["bytes"]["up"] == up
    down = sum(
        len(array.data)
        for message in grid.sent
        if message.metadata.message_type == protocol.TRAIN and message.metadata.group_id == "2"
        for array in message.content.array_records[protocol.ARRAYS].values()
    )
    assert store.history()[1]["bytes"]["down"] == down
    home = SiteHome(sites[0].home).state_folder
    (folder,) = (home / "models").iterdir()
    kept = sorted(path.name[:10] for path in folder.iterdir())
    assert kept == ["round-0003", "round-0005"], "the last before it, and the one that was judged"
