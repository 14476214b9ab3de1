"""The wearable's encoder: what it reads of an hour in which little was worn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.tiny import tiny_batch, tiny_model


def encoder_and_batch(mask):
    """Return the encoder of two windows an hour, and one worn hour with `mask` [W, F]."""
    observed = torch.tensor([[mask], [[[False, False], [False, False]]]])
    return tiny_model().encoders["wearable"], tiny_batch(wearable_mask=observed)


@pytest.mark.parametrize("worn", [0, 1])
def test_a_window_that_was_not_worn_is_not_attended_to(worn):
    mask = [[window == worn, window == worn] for window in (0, 1)]
    encoder, batch = encoder_and_batch(mask)
    before = encoder(batch)[0].detach()
    with torch.no_grad():
        encoder.place.weight[1 - worn] += 10.0
    torch.testing.assert_close(encoder(batch)[0], before, rtol=0, atol=0)
    with torch.no_grad():
        encoder.place.weight[worn] += torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(encoder(batch)[0], before)


def test_windows_that_were_worn_attend_to_each_other():
    encoder, _ = encoder_and_batch([[True, True], [True, True]])
    worn = torch.ones(2, 1, 2, dtype=torch.bool)
    x = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(3))
    (layer,) = encoder.layers
    before = layer(x, worn)
    x[:, 1] += torch.randn(2, 8, generator=torch.Generator().manual_seed(4))
    assert not torch.allclose(layer(x, worn)[:, 0], before[:, 0])


def test_a_value_that_was_not_observed_is_not_read():
    encoder, batch = encoder_and_batch([[True, False], [True, True]])
    wild = torch.where(batch.wearable_mask, batch.wearable, 1e6)
    torch.testing.assert_close(encoder(replace(batch, wearable=wild)), encoder(batch))


def test_an_hour_is_told_apart_by_what_was_observed_not_only_by_values():
    encoder, batch = encoder_and_batch([[True, False], [True, True]])
    still = replace(batch, wearable=torch.zeros_like(batch.wearable))
    every = replace(still, wearable_mask=torch.ones_like(still.wearable_mask))
    assert not torch.allclose(encoder(still)[0], encoder(every)[0])
