"""Which parameters a site may move."""

from __future__ import annotations

import pytest

from healthfm_core.errors import ProtocolError
from healthfm_core.federation.parameter_groups import (
    agree_on_modalities,
    group_names,
    group_of,
    groups_held,
)


@pytest.mark.parametrize(
    ("parameter", "group"),
    [
        ("encoders.wearable.0.weight", "wearable"),
        ("encoders.genomics.panel.bias", "genomics"),
        ("encoders.ehr.embedding.weight", "ehr"),
        ("backbone.blocks.0.rates", "backbone"),
        ("heads.next_visit.weight", "head/next_visit"),
    ],
)
def test_a_parameters_group_follows_from_its_name(parameter: str, group: str) -> None:
    assert group_of(parameter) == group


@pytest.mark.parametrize("parameter", ["encoders.imaging.w", "head.x", "heads", "", "Backbone.w"])
def test_a_parameter_of_no_group_is_refused(parameter: str) -> None:
    with pytest.raises(ValueError, match="belongs to no group"):
        group_of(parameter)


def test_a_site_holds_what_its_modalities_need_and_all_that_needs_none() -> None:
    groups = ("wearable", "backbone", "head/masked_codes", "head/masked_wearable", "ehr")
    assert groups_held({"ehr"}, groups) == ("backbone", "ehr", "head/masked_codes")
    assert groups_held({"wearable"}, groups) == (
        "backbone",
        "head/masked_wearable",
        "wearable",
    )
    assert groups_held((), groups) == ("backbone",)


def test_groups_and_their_parameters_are_sorted() -> None:
    names = group_names(["heads.a.y", "backbone.b", "heads.a.x", "backbone.a"])
    assert list(names.items()) == [
        ("backbone", ("backbone.a", "backbone.b")),
        ("head/a", ("heads.a.x", "heads.a.y")),
    ]


def test_a_study_takes_any_sites_modalities_or_those_all_share() -> None:
    sites = [{"ehr", "wearable"}, {"ehr"}, {"ehr", "genomics"}]
    assert agree_on_modalities(sites, "modality") == ("ehr", "genomics", "wearable")
    assert agree_on_modalities(sites, "shared") == ("ehr",)


@pytest.mark.parametrize("sites", [[], [set()], [{"ehr"}, {"wearable"}]])
def test_sites_without_a_modality_in_common_cannot_share_a_model(sites: list[set[str]]) -> None:
    with pytest.raises(ProtocolError, match="HF-406"):
        agree_on_modalities(sites, "shared")
