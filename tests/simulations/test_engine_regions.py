"""Regional coordinators between the sites and the national one: the same bits, and its own part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError, ProtocolError, TrustError
from healthfm_core.federation.aggregation.method_registry import methods
from healthfm_core.federation.aggregation.weighted_mean import WeightedMean
from healthfm_core.trust.site_registry import Registry
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.contract_signer import ContractSigner
from healthfm_server.study_setup.registered_sites import RegisteredSite
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.engine import FederationResult, NodeSpec, run_federation
from healthfm_simulations.sites import prepare_sites
from tests import enrolled
from tests import three_numbers as small
from tests.federation.test_influence_bounds import an_inbox
from tests.simulations.test_engine_codec import same_bits


def seven(folder: Path) -> list[NodeSpec]:
    """Sites of several sizes, of which three have wearables."""
    both, one = ("ehr", "wearable"), ("ehr",)
    sizes = {"a": 10, "b": 21, "c": 30, "d": 7, "e": 13, "f": 19, "g": 5}
    return [
        small.site(folder, name, pull=0.3 * i - 1, n=n, modalities=both if i in (0, 3, 6) else one)
        for i, (name, n) in enumerate(sizes.items())
    ]


def behind(regions: int, **federation: Any) -> RunConfig:
    plain = small.config(**federation)
    simulation = plain.simulation.model_copy(update={"regions": regions})
    return plain.model_copy(update={"simulation": simulation})


def run(folder: Path, config: RunConfig, **more: Any) -> FederationResult:
    apps = more.pop("apps", None) or small.apps()
    return run_federation(config, seven(folder.parent / "sites"), folder, apps=apps, **more)


@pytest.mark.parametrize("regions", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "federation",
    [
        {},
        {"aggregation": {"server_optimizer": {"name": "adam"}}, "rounds": 5},
        {"codec": {"uplink": "int8", "top_k": 0.5}, "rounds": 5},
    ],
    ids=["plain", "adam", "int8"],
)
def test_hierarchical_equals_flat_bit_for_bit(
    tmp_path: Path, regions: int, federation: dict[str, Any]
) -> None:
    flat = run(tmp_path / "flat", behind(0, **federation))
    there = run(tmp_path / "there", behind(regions, **federation))
    assert there.study.vocabulary == flat.study.vocabulary
    same_bits(there.parameters, flat.parameters)
    names = [f"region-{n + 1}" for n in range(regions)]
    assert [row["answered"] for row in there.history] == [names] * len(flat.history)
    for one, other in zip(there.history, flat.history, strict=True):
        weights = {group: found["weight"] for group, found in other["groups"].items()}
        assert {group: found["weight"] for group, found in one["groups"].items()} == weights
        assert one["metrics"] == pytest.approx(other["metrics"])


def test_a_large_site_of_a_small_region_counts_in_full_and_one_of_half_the_round_does_not(
    tmp_path: Path,
) -> None:
    there = run(tmp_path / "there", behind(3, rounds=1))
    region = RunStore(tmp_path / "there" / "regions" / "region-3", keep=1)
    assert region.history()[0]["groups"]["backbone"]["weight"] == 13 + 19 + 5
    assert there.history[0]["groups"]["backbone"]["weight"] == 105
    nodes = [*seven(tmp_path / "sites"), small.site(tmp_path / "sites", "h", pull=9.0, n=2**39)]
    result = run_federation(behind(3, rounds=1), nodes, tmp_path / "liar", apps=small.apps())
    assert result.history[0]["groups"]["backbone"]["weight"] == 210
    region = RunStore(tmp_path / "liar" / "regions" / "region-3", keep=1)
    assert "more than 50% of the round" in region.history()[0]["outliers"]["h"]


def test_the_model_itself_is_the_same_to_the_bit_too(tmp_path: Path) -> None:
    tiny = (
        *("data=cohort_modalities", "data.cohort.subjects=200", "data.cohort.sites=4"),
        *("data.cohort.years=2", "tokens.k_min=5", "tokens.max_len=48", "rounds=2"),
        *("train.max_steps=2", "federation.evaluate_every=0"),
    )
    results = []
    for more in ((), ("simulation.regions=2",)):
        config = compose((*tiny, *more))
        sites = cross_validation_folds(config, prepare_sites(config, tmp_path / "sites"))[0].train
        nodes = [NodeSpec(site.name, ((site.path, site.modalities),)) for site in sites]
        results.append(run_federation(config, nodes, tmp_path / f"run{len(results)}"))
    flat, there = results
    assert there.study.vocabulary == flat.study.vocabulary
    same_bits(there.parameters, flat.parameters)


def test_a_site_that_fails_costs_its_own_part_and_not_its_regions(tmp_path: Path) -> None:
    spoilt = {"b": "nan"}
    flat = run(tmp_path / "flat", behind(0), apps=small.apps(spoilt, round_=2))
    there = run(tmp_path / "there", behind(2), apps=small.apps(spoilt, round_=2))
    same_bits(there.parameters, flat.parameters)
    region = RunStore(tmp_path / "there" / "regions" / "region-1", keep=1)
    assert [row["answered"] for row in region.history()] == [["a", "b", "c"], ["a", "c"], [*"abc"]]


def test_a_region_below_its_quorum_is_left_out_and_the_round_goes_on(tmp_path: Path) -> None:
    spoilt = dict.fromkeys("abc", "raise")
    there = run(tmp_path / "there", behind(2), apps=small.apps(spoilt, round_=2))
    assert [row["answered"] for row in there.history][1] == ["region-2"]
    assert "0 of 3 sites" in there.history[1]["set_aside"]["region-1"]
    assert np.isfinite(there.parameters["backbone.w"]).all()


@pytest.mark.parametrize("until", [1, 2])
def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, until: int) -> None:
    config = behind(3, rounds=4, codec={"uplink": "int8", "top_k": 0.5})
    whole = run(tmp_path / "whole", config)
    run(tmp_path / "run", config, until=until)
    resumed = run(tmp_path / "run", config, resume=True)
    same_bits(resumed.parameters, whole.parameters)


def test_more_regions_than_sites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"HF-103.*8 regions of 7 sites"):
        run(tmp_path / "run", behind(8))


@pytest.mark.parametrize(
    "more",
    [
        *("federation=secure", "federation=krum", "federation.aggregation.groups=shared"),
        *("federation.codec.downlink=int8", "simulation.engine=ray", "network.enabled=true"),
    ],
)
def test_what_cannot_be_added_up_by_regions_is_refused(more: str) -> None:
    with pytest.raises(ConfigError, match=r"simulation\.regions"):
        compose(["simulation.regions=2", more])


def test_where_no_site_answers_the_region_says_so(tmp_path: Path) -> None:
    spoilt = dict.fromkeys("abcdefg", "raise")
    with pytest.raises(ProtocolError, match="HF-403"):
        run(tmp_path / "run", behind(2), apps=small.apps(spoilt, round_=1))


def test_sums_of_two_regions_are_taken_as_if_their_sites_had_been_asked(tmp_path: Path) -> None:
    inbox = an_inbox(tmp_path, ["north", "south"], {})
    inbox.take_sums("north", {"backbone.w": np.array([6.0, 2.0])}, {"backbone": 4.0}, 4)
    inbox.take_sums("south", {"backbone.w": np.array([2.0, 2.0])}, {"backbone": 4.0}, 9)
    inbox.close()
    assert inbox.aggregator.result("backbone")["backbone.w"].tolist() == [1.0, 0.5]
    assert inbox.tallies()["backbone"].weight == 8.0


@pytest.mark.parametrize(
    ("sums", "weights", "seen"),
    [
        ({"backbone.w": np.ones(2)}, {"backbone": 6.0}, "more people than its sites have"),
        ({"backbone.w": np.ones(2)}, {"head/x": 1.0}, "was not asked for"),
        ({"backbone.w": np.ones(2, np.float32)}, {"backbone": 1.0}, "of another type"),
        ({"backbone.w": np.ones(2), "x": np.ones(1)}, {"backbone": 1.0}, "of no group"),
        ({"backbone.w": np.full(2, 0.3)}, {"backbone": 1.0}, "not in this round's unit"),
    ],
)
def test_sums_that_no_sites_of_the_region_add_up_to_are_refused(
    tmp_path: Path, sums: dict[str, Any], weights: dict[str, float], seen: str
) -> None:
    inbox = an_inbox(tmp_path, ["north", "south"], {})
    with pytest.raises(ValueError, match=seen):
        inbox.take_sums("north", sums, weights, 5)
    assert inbox.weights == {}


def test_only_a_mean_takes_sums(tmp_path: Path) -> None:
    inbox = an_inbox(tmp_path, ["north"], {})
    assert isinstance(inbox.aggregator, WeightedMean)
    inbox.aggregator = methods()["coordinate_median"].aggregator(inbox.schema, inbox.config, 1000.0)
    with pytest.raises(ValueError, match="weighted_mean adds sums"):
        inbox.take_sums("north", {"backbone.w": np.ones(2)}, {"backbone": 1.0}, 5)


def test_an_enrolled_site_cannot_speak_for_others(tmp_path: Path) -> None:
    study, _ = enrolled.three(tmp_path)
    signer = ContractSigner(None, Registry(study / "sites.json"))
    known = signer.registry.site("a")
    alone = RegisteredSite("a", known.node_id, frozenset({"ehr"}), 5)
    assert signer.check(alone) is alone
    with pytest.raises(TrustError, match=r"HF-811.*speaks for 3 sites"):
        signer.check(RegisteredSite("a", known.node_id, frozenset({"ehr"}), 5, sites=3))
