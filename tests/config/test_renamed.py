"""Configurations of release 0.1.0 under the names of today."""

from __future__ import annotations

from healthfm_core.config import RunConfig
from healthfm_core.config.renamed import with_new_names

OLD = {
    "seed": 4,
    "federation": {
        "rounds": 5,
        "aggregation": "shared",
        "code_average": "their_sites",
        "max_update_norm": 7.0,
        "server_optimizer": {"name": "adam", "lr": 0.05},
        "robust": {"name": "none", "hostile": 0.3},
        "secure_aggregation": {
            "enabled": True,
            "letters_s": 9.0,
            "corrupt": 0.2,
            "dropout": 0.05,
            "ring_bits": 64,
        },
    },
}


def test_the_keys_of_aggregation_become_one_block() -> None:
    federation = RunConfig.model_validate(with_new_names(OLD)).federation
    block = federation.aggregation
    assert federation.rounds == 5
    assert (block.groups, block.code_rows, block.max_update_norm) == ("shared", "their_sites", 7.0)
    assert (block.method, block.byzantine_fraction) == ("weighted_mean", 0.3)
    assert (block.server_optimizer.name, block.server_optimizer.lr) == ("adam", 0.05)
    secure = block.secure
    assert (secure.enabled, secure.ring_bits, secure.message_timeout_s) == (True, 64, 9.0)
    assert (secure.colluding_fraction, secure.dropout_fraction) == (0.2, 0.05)


def test_a_median_has_its_whole_name() -> None:
    old = {"federation": {"robust": {"name": "median"}}}
    config = RunConfig.model_validate(with_new_names(old))
    assert config.federation.aggregation.method == "coordinate_median"


def test_what_has_the_names_of_today_stays_as_it_is() -> None:
    today = RunConfig().model_dump(mode="json")
    assert with_new_names(today) == today
