"""Names of 0.1.0: refused where a person writes them, read where 0.1.0 wrote them."""

import json
from pathlib import Path

import numpy as np
import pytest

from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config import renamed
from healthfm_core.config.compose import compose, options, schema_keys
from healthfm_core.config.renamed import RUN, SITE, Renames
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import ConfigError
from healthfm_core.federation.protocol import Study

STUDY = Path(__file__).with_name("study_of_0_1_0.json")
TABLE = Renames(
    keys={"train.learns": "train.trainable", "federation.sums": "aggregation.secure"},
    values={"train.trainable=evidence": "train.trainable=linear_logit", "arms=his": "arms=local"},
)


def refusal(work, *given, **named):
    with pytest.raises(ConfigError) as caught:
        work(*given, **named)
    return caught.value


def test_an_old_key_is_refused_with_the_new_one_on_the_command_line():
    for old, new in RUN.keys.items():
        error = refusal(compose, [f"{old}=1"])
        assert (error.number, error.where) == (101, old)
        assert new in error.wanted


def test_an_old_key_is_refused_with_the_new_one_in_a_yaml_file(tmp_path):
    for old, new in RUN.keys.items():
        (tmp_path / "simulate.yaml").write_text(f"{nested(old)} 1")
        error = refusal(compose, [], tmp_path)
        assert error.number == 101
        assert new in error.wanted


def test_an_old_value_is_refused_with_the_new_one():
    for old, new in RUN.values.items():
        error = refusal(compose, [old])
        assert (error.number, error.where) == (101, old)
        assert new in error.do


def test_an_old_name_in_a_site_s_policy_is_refused_with_the_new_one(tmp_path):
    old_ones = {old: f"{nested(old)} 1" for old in SITE.keys}
    old_ones |= {old: f"{nested(old.split('=')[0])} [{old.split('=')[1]}]" for old in SITE.values}
    for old, text in old_ones.items():
        (tmp_path / "site.yaml").write_text(text)
        error = refusal(SitePolicy.read, tmp_path / "site.yaml")
        assert (error.number, error.where) == (101, f"site.yaml, {old}")
        assert (SITE.keys | SITE.values)[old] in error.wanted


def nested(key: str) -> str:
    *sections, last = key.split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(sections)]
    return "\n".join([*lines, f"{'  ' * len(sections)}{last}:"])


@pytest.mark.parametrize(
    ("table", "schema"), [(RUN, RunConfig), (SITE, SitePolicy)], ids=["run", "site"]
)
def test_every_new_name_exists_and_no_old_one_does(table, schema):
    known = {key for key, _ in schema_keys(schema)}
    assert set(table.keys.values()) <= known
    assert not set(table.keys) & known


def test_every_new_value_is_one_that_is_taken():
    for new in RUN.values.values():
        key, _, value = new.partition("=")
        assert value in options(key) or compose([f"{key}={value}"])


def test_a_study_of_0_1_0_is_read_under_the_new_names():
    study = Study.from_json(STUDY.read_text())
    assert study.version == 2
    assert study.config.name == "cohort"
    assert study.config.federation.rounds == 1
    assert study.vocabulary.targets


def test_nothing_that_0_1_0_wrote_is_dropped():
    old = json.loads(STUDY.read_text())["config"]
    assert leaves(RUN.upgrade(old)) == leaves(old)


def leaves(values: dict) -> int:
    return sum(leaves(v) if isinstance(v, dict) and v else 1 for v in values.values())


def test_an_old_section_is_read_as_the_new_one_with_all_that_is_in_it():
    old = {"train": {"learns": "evidence", "lr": 0.1}, "federation": {"sums": {"clip": {"a.b": 1}}}}
    assert TABLE.upgrade(old) == {
        "train": {"trainable": "linear_logit", "lr": 0.1},
        "aggregation": {"secure": {"clip": {"a.b": 1}}},
    }


def test_the_sentence_names_the_new_key_and_what_to_write():
    error = refusal(TABLE.refuse, {"train": {"learns": "evidence"}})
    assert str(error) == (
        "ConfigError[HF-101]: train.learns: renamed in 0.2.0; it is train.trainable now. "
        "Write train.trainable=linear_logit"
    )
    error = refusal(TABLE.refuse, {"federation": {"sums": {"clip": 3}}}, file="site.yaml")
    assert error.where == "site.yaml, federation.sums.clip"
    assert error.do == "Write aggregation.secure.clip: 3"
    error = refusal(TABLE.refuse, {"arms": ["federated", "his"]})
    assert error.where == "arms=his"
    assert error.do == "Write arms=local"


def test_parameters_of_an_older_model_get_their_new_names(monkeypatch):
    monkeypatch.setattr(renamed, "PARAMETERS", {"evidence.": "linear_logit."})
    old = {"evidence.slope": np.ones(1), "backbone.evidence": np.zeros(1)}
    assert list(renamed.upgraded_parameters(old)) == ["linear_logit.slope", "backbone.evidence"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("heads.hazard.state.weight", "heads.time_to_event.state.weight"),
        ("heads.wearable_reconstruction.bias", "heads.masked_wearable.bias"),
        ("heads.next_event.told.weight", "heads.next_event.gap_embedding.weight"),
        ("encoders.ehr.evidence.weight", "encoders.ehr.linear_logit.weight"),
        ("encoders.wearable.evidence.weight", "encoders.wearable.linear_logit.weight"),
        ("backbone.sums.ffn.up.weight", "backbone.sum_pooling.ffn.up.weight"),
        ("backbone.norm.weight", "backbone.norm.weight"),
    ],
)
def test_a_parameter_of_release_0_1_0_is_read_under_its_name_of_today(old, new):
    assert list(renamed.upgraded_parameters({old: np.ones(1)})) == [new]


def test_the_keys_of_aggregation_become_one_block():
    robust = {"name": "median", "hostile": 0.3}
    secure = {"letters_s": 9.0, "corrupt": 0.2, "dropout": 0.05, "ring_bits": 64}
    old = {
        "aggregation": "shared",
        "code_average": "their_sites",
        "server_optimizer": {"name": "adam", "lr": 0.05},
        "robust": robust,
        "secure_aggregation": secure,
    }
    block = RunConfig.model_validate(RUN.upgrade({"federation": old})).federation.aggregation
    assert (block.groups, block.code_rows) == ("shared", "their_sites")
    assert (block.method, block.byzantine_fraction) == ("coordinate_median", 0.3)
    assert (block.server_optimizer.name, block.server_optimizer.lr) == ("adam", 0.05)
    assert (block.secure.ring_bits, block.secure.message_timeout_s) == (64, 9.0)
    assert (block.secure.colluding_fraction, block.secure.dropout_fraction) == (0.2, 0.05)


def test_what_has_the_names_of_today_stays_as_it_is():
    today = RunConfig().model_dump(mode="json")
    assert RUN.upgrade(today) == today
