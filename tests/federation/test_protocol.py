"""What both sides read and write."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest

from healthfm_core.config import RunConfig
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.protocol import READABLE, VERSION, RoundOrder, Study, for_the_wire
from healthfm_core.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    codes=("A", "B"),
    domains=("A", "B"),
    value_bins=10,
    percentiles={},
    targets=("B",),
    target_rates=(0.1,),
    onset_rates=(0.1,),
    label_rate=0.2,
    panel=("height",),
    wearable=None,
    reach=(1.0, 0.4),
)


def _study() -> Study:
    return Study(VERSION, "r", RunConfig(seed=4), VOCABULARY, ("ehr",))


def test_a_study_survives_the_wire() -> None:
    study = _study()
    back = Study.from_json(study.to_json())
    assert back == study
    assert back.hash == study.hash


def test_another_study_has_another_hash() -> None:
    assert dataclasses.replace(_study(), modalities=("ehr", "wearable")).hash != _study().hash


def test_another_version_is_refused_before_anything_else_is_read() -> None:
    with pytest.raises(ProtocolError, match="HF-401"):
        Study.from_json(json.dumps({"version": VERSION + 1, "news": True}))


@pytest.mark.parametrize("version", sorted(READABLE - {VERSION}))
def test_a_study_of_a_version_before_is_still_read(version: int) -> None:
    config = {"federation": {"aggregation": "shared", "robust": {"name": "krum"}}}
    before = json.loads(_study().to_json()) | {"version": version, "config": config}
    study = Study.from_json(json.dumps(before))
    assert study.version == version
    assert study.config.federation.aggregation.groups == "shared"
    assert study.config.federation.aggregation.method == "krum"


def test_a_study_of_this_version_has_no_old_names() -> None:
    now = json.loads(_study().to_json()) | {"config": {"model": {"sums": True}}}
    with pytest.raises(ProtocolError, match="HF-404"):
        Study.from_json(json.dumps(now))
    assert Study.from_json(json.dumps(now | {"version": VERSION - 1})).config.model.sum_pooling


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1, "config": {"lr": 1}}', "null"])
def test_what_is_no_study_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="HF-404"):
        Study.from_json(text)


def test_an_order_survives_the_wire() -> None:
    order = RoundOrder(round=2, rounds=9, groups=("backbone", "ehr"), evaluate=True, seed=2**62)
    assert RoundOrder.from_json(order.to_json()) == order
    assert "counted" not in order.to_json(), "as earlier releases read it"
    encoded = replace(order, counted={"backbone": 1, "ehr": 1})
    assert RoundOrder.from_json(encoded.to_json()) == encoded


@pytest.mark.parametrize("counted", [[], {"ehr": "1"}, {"ehr": 1.0}, {"ehr": True}, None])
def test_rounds_of_another_type_are_no_order(counted: object) -> None:
    order = RoundOrder(round=2, rounds=9, groups=("ehr",), evaluate=True, seed=1)
    text = json.dumps({**json.loads(order.to_json()), "counted": counted})
    with pytest.raises(ProtocolError, match="HF-402"):
        RoundOrder.from_json(text)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"groups": []}', '{"groups": [], "more": 1}'])
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="HF-402"):
        RoundOrder.from_json(text)


def test_the_coordinators_folders_do_not_travel() -> None:
    config = RunConfig.model_validate(
        {"out": "here", "resume": True, "data": {"path": "there", "stores": ["everywhere"]}}
    )
    text = for_the_wire(config).model_dump_json()
    assert not {"here", "there", "everywhere"} & set(text.split('"'))
