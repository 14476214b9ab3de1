"""What a coordinator is warned of."""

from __future__ import annotations

import pytest

from healthfm_core.federation.alarms import alarms, kind_of


def row(shortest: float = 1.0, longest: float = 400.0, **norms: float) -> dict[str, object]:
    metrics = {"layer0/half_life_min_days": shortest, "layer0/half_life_max_days": longest}
    return {"metrics": metrics | {f"grad_norm/{name}": norm for name, norm in norms.items()}}


def test_a_sound_run_raises_none():
    assert alarms([row(ehr=1.0, wearable=0.2)] * 5) == []
    assert alarms([]) == []


@pytest.mark.parametrize(
    ("shortest", "longest", "words"),
    [(0.1, 6.9, "within a week"), (3700.0, 7000.0, "no longer tells times apart")],
)
def test_a_kernel_that_decays_at_once_or_never_is_named(shortest, longest, words):
    (found,) = alarms([row(shortest, longest)])
    assert "Layer 0" in found
    assert words in found


def test_a_modality_that_gets_next_to_none_of_the_gradient_for_three_rounds_is_named():
    poor, fair = row(ehr=1.0, wearable=0.01), row(ehr=1.0, wearable=0.5)
    assert alarms([poor, poor]) == []
    assert alarms([poor, fair, poor, poor]) == []
    (found,) = alarms([fair, poor, poor, poor])
    assert found.startswith("The wearable encoder has had less than 5 %")
    assert found.endswith("1.0 % now.")
    assert kind_of(found) == kind_of(found.replace("1.0", "2.0"))


def test_a_model_of_one_modality_cannot_collapse():
    assert alarms([row(ehr=1.0)] * 5) == []
