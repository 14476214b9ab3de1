"""What the network receives in training, and what the objectives see of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from healthfm_core.config import PrivacyConfig, TrainConfig
from healthfm_core.config.compose import compose
from healthfm_core.config.train import ObjectivesConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import EVENT, SOFT, WEARABLE
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import RoundOrder
from healthfm_core.models import HealthFM
from healthfm_core.objectives.input_masking import MaskedInputs, mask_inputs
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.privacy.entropy import Entropy
from healthfm_core.training import PrivacyPlan, SiteData, initial_parameters, train_round
from healthfm_core.training.gradients import dp_sgd
from healthfm_core.training.passes import input_dropout, losses, passes_for
from healthfm_simulations.cohort import generate, write_sites
from tests.models.tiny import tiny_batch, tiny_model
from tests.training.test_loop import SETTINGS, study_of

ALONE = dict.fromkeys(ObjectivesConfig.model_fields, 0.0)
GRADIENTS = ["plain", "dp"]
"""Two ways to a gradient, each of which makes batches of its own."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = compose(SETTINGS)
    paths = write_sites(generate(config.data.cohort, 0), tmp_path_factory.mktemp("sites"))
    stores = [SiteStore.open(path) for path in paths]
    study = study_of(config, stores)
    every = next(store for store in stores if len(store.modalities) == 3)
    return study, initial_parameters(study), SiteData.load([every], study)


@pytest.fixture(autouse=True)
def no_chance(monkeypatch):
    """Draw the same people in every run, where the operating system would draw them."""

    class Keyed(Entropy):
        def __init__(self) -> None:
            count = iter(range(1 << 30))
            super().__init__(lambda n: hashlib.shake_256(b"%d" % next(count)).digest(n))

    monkeypatch.setattr(dp_sgd, "Entropy", Keyed)


@pytest.fixture
def received(monkeypatch) -> list[Batch]:
    """Every batch that the network is given."""
    batches: list[Batch] = []
    forward = HealthFM.forward

    def noted(self, batch, at_BQ=None):
        batches.append(batch)
        return forward(self, batch, at_BQ)

    monkeypatch.setattr(HealthFM, "forward", noted)
    return batches


def train(world, objectives, *, round_=1, gradient="plain", **settings):
    """Train one round of eleven on some objectives alone."""
    study, parameters, data = world
    weights = ObjectivesConfig(**ALONE | objectives)
    changes = {"objectives": weights, "max_steps": 8, "local_epochs": 8.0, "batch_size": 4}
    config = study.config.train.model_copy(update=changes | settings)
    study = replace(study, config=study.config.model_copy(update={"train": config}))
    groups = tuple(sorted({group_of(name) for name in parameters}))
    order = RoundOrder(round=round_, rounds=11, groups=groups, evaluate=False, seed=3)
    privacy = PrivacyConfig(mode="dp", noise_multiplier=1.0)
    plan = PrivacyPlan(privacy, Mechanism(1.0, 0.7, 8), 11) if gradient == "dp" else None
    return train_round(parameters, data, study, order, plan)


def rows_with(batches: Sequence[Batch], kind: int) -> list[bool]:
    """Return for every row whether it has an item of `kind`."""
    return [bool(has) for batch in batches for has in (batch.kind == kind).any(1)]


# The objectives' weights in a round


def test_a_staged_round_is_trained_by_the_weights_of_that_round(world):
    objectives = {"next_visit": 1.0, "cross_modal": 1.0}
    head, worn = "grad_norm/head/next_visit", "loss_cross_modal"
    for round_, share, asks_while_worn in ((1, 0.5, False), (6, 0.75, True), (11, 1.0, True)):
        staged, plain = (
            train(world, objectives, round_=round_, curriculum=curriculum, max_steps=1).metrics
            for curriculum in ("staged", "none")
        )
        assert staged[head] == pytest.approx(share * plain[head], rel=1e-4)
        assert (worn in staged, worn in plain) == (asks_while_worn, True)


# What is masked


def seeds_that_mask(batch: Batch, **settings) -> list[tuple[int, MaskedInputs]]:
    found = [(seed, masked_with(batch, seed, **settings)) for seed in range(12)]
    return [(seed, masked) for seed, masked in found if bool(masked.cells.any())]


def masked_with(batch: Batch, seed: int, **settings) -> MaskedInputs:
    generator = torch.Generator().manual_seed(seed)
    return mask_inputs(batch, mask_token=2, channels=0, generator=generator, **settings)


def with_other_values(batch: Batch, masked: MaskedInputs) -> Batch:
    """Return the batch with everything else where something was masked."""
    at = masked.batch.token != batch.token
    return replace(
        batch,
        token=torch.where(at, batch.token % 4 + 3, batch.token),
        code=torch.where(at, batch.code % 3 + 1, batch.code),
        quantile=torch.where(at, batch.quantile - 0.7, batch.quantile),
        has_value=batch.has_value | at,
        spread=torch.where(at.unsqueeze(-1), batch.spread + 3.0, batch.spread),
        wearable=torch.where(masked.cells, batch.wearable + 5.0, batch.wearable),
    )


def test_the_network_reads_nothing_of_what_was_masked(received):
    model = tiny_model(heads=("next_visit", "masked_codes", "masked_wearable"), spread=2)
    batch = tiny_batch(spread=torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(2)))
    settings = {"fraction": 0.5, "wearable_fraction": 0.9}
    config = TrainConfig(
        objectives=ObjectivesConfig(next_visit=1, masked_reconstruction=1),
        mask_fraction=settings["fraction"],
        mask_wearable=settings["wearable_fraction"],
    )
    cases = seeds_that_mask(batch, **settings)
    assert len(cases) > 3
    for seed, masked in cases:
        other = with_other_values(batch, masked)
        assert not torch.equal(model.encode(other), model.encode(batch))
        received.clear()
        for rows in (batch, other):
            generator = torch.Generator().manual_seed(seed)
            losses(model, rows, passes_for(config, ("sep",)), config, generator)
        first, second = received
        torch.testing.assert_close(model.encode(first), model.encode(second), rtol=0, atol=0)
        torch.testing.assert_close(model(first), model(second), rtol=0, atol=0)


def test_a_masked_place_is_cleared_of_all_that_an_encoder_may_read():
    spread = torch.ones(2, 6, 2)
    batch = tiny_batch(spread=spread)
    for _, masked in seeds_that_mask(batch, fraction=0.5, wearable_fraction=0.9):
        at, left = masked.batch.token != batch.token, masked.batch
        assert (left.token[at] == 2).all()
        for name in ("code", "has_value", "spread"):
            assert not getattr(left, name)[at].any(), name
            assert torch.equal(getattr(left, name)[~at], getattr(batch, name)[~at])
        assert torch.equal(left.wearable_mask, batch.wearable_mask & ~masked.cells)
        assert not left.wearable[masked.cells].any()
        assert torch.equal(left.wearable[~masked.cells], batch.wearable[~masked.cells])


def test_the_objective_is_asked_for_what_stood_there_before(received):
    model = tiny_model(heads=("masked_codes", "masked_wearable"))
    batch = tiny_batch()
    settings = {"fraction": 0.5, "wearable_fraction": 0.9}
    config = TrainConfig(
        objectives=ObjectivesConfig(next_visit=0, masked_reconstruction=1),
        mask_fraction=settings["fraction"],
        mask_wearable=settings["wearable_fraction"],
    )
    seed, masked = seeds_that_mask(batch, **settings)[0]
    stood = batch.token.gather(1, masked.position)
    assert torch.equal(masked.token, stood)

    def means(rows):
        generator = torch.Generator().manual_seed(seed)
        return losses(model, rows, passes_for(config, ("sep",)), config, generator).means

    before, after = means(batch), means(with_other_values(batch, masked))
    for name in ("loss_masked_codes", "loss_masked_wearable"):
        assert before[name] != after[name]


# Which modalities a row keeps


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(("modality", "kind"), [("genomics", SOFT), ("wearable", WEARABLE)])
def test_modality_dropout_hides_the_modality_from_the_network(
    world, received, modality, kind, gradient
):
    shares = []
    for probability in (0.0, 0.5, 1.0):
        received.clear()
        setting = {f"drop_{modality}": probability}
        train(world, {"next_visit": 1.0}, gradient=gradient, **setting)
        has = rows_with(received, kind)
        shares.append(sum(has) / len(has))
        if modality == "genomics" and probability == 1.0:
            assert not any(bool(batch.panel_mask.any()) for batch in received)
            assert not any(bool(batch.panel.any()) for batch in received)
    assert shares[0] > 2 * shares[2]
    assert shares[0] > 0.5
    assert 0.2 * shares[0] < shares[1] < 0.8 * shares[0]
    assert shares[2] == 0


def test_by_default_wearables_and_scores_are_dropped_from_every_second_row():
    assert input_dropout("sep", TrainConfig()) == {"ehr": 0.0, "wearable": 0.5, "genomics": 0.5}


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_dropped_events_are_not_received(world, received, gradient):
    count = []
    for share in (0.0, 0.9):
        received.clear()
        train(world, {"next_visit": 1.0}, gradient=gradient, drop_events=share)
        rows = sum(batch.size for batch in received)
        count.append(sum(int((batch.kind == EVENT).sum()) for batch in received) / rows)
    assert 0 < count[1] < 0.25 * count[0]


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_cross_modal_row_without_its_clinic_has_wearing_and_scores_alone(
    world, received, gradient
):
    settings = {"cross_drop_ehr": 1.0, "drop_ehr": 0.0, "drop_wearable": 1.0}
    train(world, {"cross_modal": 1.0}, gradient=gradient, **settings)
    assert received
    for batch in received:
        assert not batch.code.any()
        assert not batch.token.any()
        assert not batch.age_years.any()
    assert all(rows_with(received, WEARABLE))
    received.clear()
    train(world, {"cross_modal": 1.0}, gradient=gradient, **settings | {"cross_drop_ehr": 0.0})
    assert sum(rows_with(received, EVENT)) > 0.2 * sum(batch.size for batch in received)
    assert all(rows_with(received, WEARABLE))
