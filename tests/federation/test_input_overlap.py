"""Which wearable channels and scores sites have and share: told before round 1, to whom, how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.config.compose import compose
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.input_overlap import HeldAndShared, InputOverlap, told_inputs
from healthfm_core.federation.overlap_table import overlap_lines, overlap_table
from healthfm_core.tokens.shared_channels import study_wearable
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_server.run_folder.run_description import describe_run
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import NodeSpec, run_federation
from tests.tokens.small_store import Row, Worn, write

PEOPLE = range(1, 31)
FEW = range(1, 4)
"""Fewer than k."""
TOKENS = TokensConfig(k_min=5)
MINUTE, DAY = 1 / 60, 1 / 86_400


def site(
    folder: Path,
    name: str,
    scores: Sequence[str] = (),
    device: str = "",
    channels: Sequence[str] = (),
    hz: float = MINUTE,
    rare: Sequence[str] = (),
) -> NodeSpec:
    """A site of 30 people who all have all, but what is `rare`."""
    rows: list[Row] = [(n, hour, "DX//A", None) for n in PEOPLE for hour in (1.0, 9000.0)]
    rows += [(n, None, f"PRS//{s}", float(n)) for s in scores for n in PEOPLE]
    rows += [(n, None, f"PRS//{s}", float(n)) for s in rare for n in FEW]
    worn: list[Worn] = [(n, 0.0, c, hz, [float(n), 10.0]) for c in channels for n in PEOPLE]
    write(folder / name, rows, worn=worn, device=device or "wrist")
    return NodeSpec(name, [(folder / name, None)])


def three(folder: Path) -> list[NodeSpec]:
    return [
        site(folder, "a", ("PGS1", "PGS2"), "fitbit", ("INTENSITY", "STEPS"), rare=("PGS3",)),
        site(folder, "b", ("PGS1", "PGS3"), "axivity", ("ACCELERATION",)),
        site(folder, "c"),
    ]


def run(folder: Path, nodes: Sequence[NodeSpec], *settings: str) -> RunStore:
    small = ["model=tiny", "tokens.k_min=5", "train.max_steps=1", "federation.rounds=1"]
    run_federation(compose([*small, *settings]), nodes, folder / "run")
    return RunStore.open(folder / "run")


def told(store: RunStore) -> InputOverlap:
    found = told_inputs(store.events())
    assert found is not None
    return found


def test_of_each_site_what_it_has_and_what_another_has_too_is_told(tmp_path):
    found = told(run(tmp_path, three(tmp_path)))
    assert found.channels == HeldAndShared(2, 1)
    assert found.panels == {"genomics": HeldAndShared(3, 1)}
    a, b, c = (found.sites[name] for name in "abc")
    assert (a.channels, a.panels) == (HeldAndShared(2, 1), {"genomics": HeldAndShared(2, 1)})
    assert (a.devices, a.shared) == (
        {"fitbit": ("INTENSITY", "STEPS")},
        {"fitbit": ("INTENSITY",)},
    )
    assert (b.channels, b.panels) == (HeldAndShared(1, 1), {"genomics": HeldAndShared(2, 1)})
    assert (c.channels, c.panels, c.devices) == (HeldAndShared(0, 0), {}, {})


def test_a_score_of_fewer_people_than_k_is_not_told_and_not_shared(tmp_path):
    found = told(run(tmp_path, three(tmp_path)))
    assert found.sites["a"].panels["genomics"].held == 2  # PGS3 of three people is not
    assert found.panels["genomics"].shared == 1  # nor is it shared with b


def test_the_coordinator_reads_it_in_the_table_and_in_sentences(tmp_path):
    store = run(tmp_path, three(tmp_path))
    lines = list(describe_run(store.folder))
    at = next(i for i, line in enumerate(lines) if line.startswith("share of a site's events"))
    assert lines[at + 1 : at + 5] == [
        "  site  all codes     DX     channels       scores",
        "  a         100 %  100 %  2, 1 shared  2, 1 shared",
        "  b         100 %  100 %  1, 1 shared  2, 1 shared",
        "  c         100 %  100 %            –            –",
    ]
    for said in (
        "wearables at a: fitbit (INTENSITY, STEPS); others have INTENSITY",
        "wearables at b: axivity (ACCELERATION); others have ACCELERATION",
        "Wearable channels: 1 of the study's 2 at more than one site",
        "Scores: 1 of 3 at more than one site; fewest of these at a, 1",
    ):
        assert said in lines
    assert not [line for line in lines if ": wearables and scores" in line]


def test_a_device_that_the_study_does_not_read_shares_nothing(tmp_path):
    nodes = [
        site(tmp_path, "a", device="fitbit", channels=["STEPS"]),
        site(tmp_path, "b", device="fitbit", channels=["STEPS"]),
        site(tmp_path, "c", device="totals", channels=["STEPS"], hz=DAY),
    ]
    found = told(run(tmp_path, nodes))
    assert [found.sites[n].channels for n in "abc"] == [
        HeldAndShared(1, 1),
        HeldAndShared(1, 1),
        HeldAndShared(1, 0),
    ]
    assert list(found.of_devices())[-1] == ("wearables at c: totals (STEPS); no other site has any")


def test_a_site_without_a_clinical_event_stands_in_the_table_with_its_scores(tmp_path):
    found = told(run(tmp_path, three(tmp_path)))
    assert overlap_table({"a": {}}, found)[1] == ["a", "–", "2, 1 shared", "2, 1 shared"]
    assert overlap_table({"a": {}}) == []


def test_sums_tell_how_many_several_sites_have_and_of_no_site_which(tmp_path):
    nodes = [
        site(tmp_path, "a", ("PGS1", "PGS2"), "fitbit", ("INTENSITY", "STEPS")),
        site(tmp_path, "b", ("PGS1", "PGS3"), "axivity", ("ACCELERATION",)),
        site(tmp_path, "c", ("PGS1",), "fitbit", ("STEPS",)),
    ]
    store = run(tmp_path, nodes, "federation.aggregation.secure.enabled=true")
    found = told(store)
    assert found.sites == {}
    assert found.panels == {"genomics": HeldAndShared(3, 1)}
    assert found.channels == HeldAndShared(2, 1)  # two devices of one channel may be one site's
    assert list(found.sentences()) == [
        "Wearable channels: at least 1 of the study's 2 at more than one site",
        "Scores: 1 of 3 at more than one site",
    ]
    lines = list(overlap_lines({"a": {"coverage_shared": 1.0}}, found))
    assert lines == ["site  all codes", "a         100 %"]


def test_a_channel_of_two_rates_in_sums_counts_the_sites_of_both(tmp_path):
    nodes = [
        site(tmp_path, "a", device="band", channels=["HR"]),
        site(tmp_path, "b", device="band", channels=["HR"], hz=1.01 * MINUTE),
        site(tmp_path, "c"),
    ]
    store = run(tmp_path, nodes, "federation.aggregation.secure.enabled=true")
    assert told(store).channels == HeldAndShared(1, 1)


def test_one_site_alone_and_sites_without_either_are_told_nothing_of_it(tmp_path):
    alone = run(tmp_path, [site(tmp_path, "a", ("PGS1",))])
    assert told_inputs(alone.events()) is None
    plain = tmp_path / "plain"
    bare = run(plain, [site(plain, "a"), site(plain, "b")])
    assert told_inputs(bare.events()) is None


@pytest.mark.parametrize("swap", [False, True])
def test_the_event_reads_back_and_the_order_of_sites_does_not_matter(tmp_path, swap):
    stores = {node.name: SiteStore.open(node.stores[0][0]) for node in three(tmp_path)}
    each = {name: site_statistics([store], TOKENS) for name, store in stores.items()}
    each = dict(reversed(each.items())) if swap else each
    merged = merge(list(each.values()))
    found = InputOverlap.of(merged, each, study_wearable(merged, TOKENS))
    assert InputOverlap.from_event(found.to_event()) == found
    assert list(found.sites) == ["a", "b", "c"]
