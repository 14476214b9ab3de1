"""A federation over one truth in three forms learns as if it had been one table."""

from __future__ import annotations

import pytest

from tests.ingest.one_truth.__main__ import hospitals, shared_events, trained


def test_every_event_stands_under_a_code_that_another_form_has(tmp_path):
    stores = hospitals(tmp_path, people=120, seed=1)
    assert shared_events(stores) == {"omop": 1.0, "fhir": 1.0, "meds": 1.0}


@pytest.mark.slow
def test_a_federation_over_three_forms_is_within_the_centralised_models_interval(tmp_path):
    """A small one; ``python -m tests.ingest.one_truth`` has the figures."""
    found = trained(hospitals(tmp_path, people=100, seed=1), tmp_path / "run", rounds=5)
    centralised = found["centralised", "overall"]
    assert found["federated", "overall"].value >= centralised.low
    assert centralised.value > 0.25
