"""Secure aggregation over real stores, statistics, tokens and training, with the tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.config import RunConfig
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.sites import prepare_sites

COHORT = {"subjects": 90, "sites": 3, "size_skew": 20.0, "wearable_hours": 6}
OF_A_MODALITY = {f"grad_norm/{modality}" for modality in ("ehr", "genomics", "wearable")}
"""Metrics that no sum carries: they would tell what a late site has."""
SECURE = {"aggregation": {"secure": {"enabled": True, "ring_bits": 64, "clip": 50.0}}}


def config(**federation) -> RunConfig:
    return RunConfig.model_validate(
        {
            "seed": 1,
            "data": {"cohort": {**COHORT, "without_wearable": 0.0}},
            "tokens": {"k_min": 2, "max_len": 64},
            "model": {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "wearable_width": 8},
            "train": {"max_steps": 2, "batch_size": 8},
            "federation": {"rounds": 2, **federation},
        }
    )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> list[NodeSpec]:
    """Three simulated sites, of which the first may use no wearables."""
    sites = prepare_sites(config(), tmp_path_factory.mktemp("cohort"))
    views = [("ehr", "genomics"), None, None]
    return [
        NodeSpec(site.name, [(site.path, view)]) for site, view in zip(sites, views, strict=True)
    ]


def test_a_masked_run_trains_the_model_of_the_plain_one(nodes: list[NodeSpec], tmp_path: Path):
    plain = run_federation(config(), nodes, tmp_path / "plain")
    hidden = run_federation(config(**SECURE), nodes, tmp_path / "masked")
    assert hidden.study.vocabulary.codes == plain.study.vocabulary.codes
    assert hidden.study.modalities == plain.study.modalities
    for name, value in plain.parameters.items():
        np.testing.assert_allclose(hidden.parameters[name], value, atol=2e-6)
    for one, other in zip(hidden.history, plain.history, strict=True):
        assert one["groups"].keys() == other["groups"].keys()
        assert one["metrics"].keys() == other["metrics"].keys() - OF_A_MODALITY
        for name, value in one["metrics"].items():
            assert value == pytest.approx(other["metrics"][name], rel=1e-4, abs=1e-5)
        weights = {group: found["weight"] for group, found in other["groups"].items()}
        assert {group: found["weight"] for group, found in one["groups"].items()} == weights
