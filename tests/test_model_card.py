"""The model card says what was promised to the people a model was trained on."""

from __future__ import annotations

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_core.config import PrivacyConfig
from healthfm_core.federation.protocol import VERSION, Study
from healthfm_core.trained import TrainedModel
from tests import three_numbers as small

SUMS = {"aggregation": {"secure": {"enabled": True}}}


@pytest.mark.parametrize(
    ("privacy", "more", "said"),
    [
        ({"mode": "off"}, {}, "asked for no differential privacy"),
        ({"mode": "dp", "epsilon": 3.0}, {}, "(dp), ε 3, δ 1e-05; unit: one person's whole record"),
        (
            {"mode": "dp", "noise_multiplier": 1.5, "delta": 1e-6},
            {},
            "(dp) with noise multiplier 1.5, clipping norm 1, δ 1e-06",
        ),
        ({"mode": "distributed", "epsilon": 8.0}, SUMS, "(distributed), ε 8, δ 1e-05"),
    ],
)
def test_the_card_names_mode_epsilon_delta_and_unit(privacy, more, said):
    config = small.config(**more).model_copy(update={"privacy": PrivacyConfig(**privacy)})
    study = Study(VERSION, "r", config, small.VOCABULARY, ("ehr",))
    card = TrainedModel(study, {"w": np.zeros(2, np.float32)}, 1).card()
    assert said in card
    assert ("no differential privacy" in card) is (privacy["mode"] == "off")
