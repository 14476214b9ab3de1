"""Gradients of decay rates and weights per subject under Opacus, against a loop over subjects.

The loop sees each subject alone, without padding. Errors are relative to the norm of a subject's
gradient of all rates and weights together: one tensor's own can be next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import fields

import opacus
import pytest
import torch
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import EVENT, NOW, SOFT, WEARABLE
from healthfm_core.kernels.ct_attention.cpu import compiled
from healthfm_core.models.backbone import Block
from healthfm_core.objectives.next_visit import next_visit_loss
from tests.models.tiny import CONFIG, tiny_batch, tiny_model

Gradients = dict[str, Tensor]

LENGTHS = [(40,), (4, 100, 17, 70)]
PRECISIONS = [(torch.float32, 1e-6 if compiled.instructions() else 3e-6), (torch.float64, 1e-12)]
"""What it runs in and the largest error. Float32 attends in the compiled kernel, else in tiles like
float64, whose rounding depends on the padding."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.parametrize("lengths", LENGTHS, ids=str),
    pytest.mark.parametrize(("dtype", "most"), PRECISIONS, ids=str),
    pytest.mark.parametrize("network", ["model", "model with a floor", "block"]),
]


def people(lengths: tuple[int, ...], dtype: torch.dtype) -> Batch:
    """Rows of these lengths: a score's slot, a worn hour, events over eight years, NOW.

    The next visit is asked for after every token.
    """
    g = torch.Generator().manual_seed(0)
    b, t = len(lengths), max(lengths)
    length, position = torch.tensor(lengths)[:, None], torch.arange(t).expand(b, t)
    kind = torch.full((b, t), EVENT).masked_fill(position == length - 1, NOW)
    kind[:, 0], kind[:, 1] = SOFT, WEARABLE
    kind = kind.masked_fill(position >= length, 0)
    is_event, is_timed = kind == EVENT, (position > 0) & (kind > 0)
    days_ago = torch.rand(b, t, generator=g).mul(3000).masked_fill(~is_timed, 0.0)
    t_days = -days_ago.sort(1, descending=True).values.roll(1, 1).masked_fill(~is_timed, 0.0)
    batch = tiny_batch(
        kind=kind,
        token=torch.randint(3, 9, (b, t), generator=g) * is_event,
        code=torch.randint(1, 5, (b, t), generator=g) * is_event,
        quantile=torch.rand(b, t, generator=g) * is_event,
        has_value=is_event,
        t_days=t_days,
        gap_days=torch.diff(t_days, dim=1, prepend=t_days[:, :1]).clamp_min(0) * is_timed,
        age_years=(40 + t_days / 365) * is_timed,
        kv_end=((position + 1).minimum(length - 1) * (kind > 0)).int(),
        n_static=torch.ones(b, dtype=torch.int32),
        wearable_slot=torch.where(kind == WEARABLE, 0, -1),
        soft_slot=torch.where(kind == SOFT, 0, -1),
        wearable=torch.randn(b, 1, 2, 2, generator=g),
        wearable_mask=torch.ones(b, 1, 2, 2, dtype=torch.bool),
        panel=torch.randn(b, 3, generator=g),
        panel_mask=torch.ones(b, 3, dtype=torch.bool),
        query=position,
        query_mask=kind > 0,
        query_time_us=torch.zeros(b, t, dtype=torch.int64),
        target=torch.randint(0, 2, (b, t, 2), generator=g).float(),
        repeats=torch.zeros(b, t, 2),
        event_days=torch.full((b, t, 2), torch.inf),
        exposure_days=torch.ones(b, t),
        label=torch.ones(b, t),
        subject=torch.arange(b),
    )
    return widened(batch, dtype)


def widened(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch in another precision, which `Batch` itself would refuse."""
    found = copy(batch)
    for field in fields(Batch):
        part = getattr(batch, field.name)
        if part.is_floating_point():
            object.__setattr__(found, field.name, part.to(dtype))
    return found


def alone(batch: Batch, row: int) -> Batch:
    """One subject as a batch, without the padding that the others made necessary."""
    length = int((batch.kind[row] > 0).sum())
    single = widened(batch, torch.float32)
    parts = {field.name: getattr(single, field.name)[row : row + 1] for field in fields(Batch)}
    cut = {
        name: part[:, :length] if part.shape[1:2] == batch.kind.shape[1:] else part
        for name, part in parts.items()
    }
    return widened(Batch(**cut), batch.t_days.dtype)


def of_model(model: nn.Module, batch: Batch) -> Tensor:
    asked = model(batch, batch.query)
    return next_visit_loss(model.head("next_visit", asked, batch), batch, repeat_decay=0.5)


def of_block(block: nn.Module, batch: Batch) -> Tensor:
    """Losses that read a block's outputs with weights of either sign."""
    g = torch.Generator().manual_seed(5)
    x, weight = torch.randn(2, 4, 100, CONFIG.width, generator=g, dtype=batch.t_days.dtype)[
        :, batch.subject, : batch.kind.shape[1]
    ]
    return (block(x, batch) * weight * batch.query_mask.unsqueeze(-1)).sum((1, 2))


def build(network: str, dtype: torch.dtype) -> tuple[nn.Module, Callable[..., Tensor]]:
    """The network, and a function of it and a batch that gives one loss per subject."""
    if network == "block":
        torch.manual_seed(0)
        return Block(CONFIG).to(dtype), of_block
    return tiny_model(floor="floor" in network).to(dtype), of_model


def by_loop(module: nn.Module, losses: Callable[..., Tensor], batch: Batch) -> Gradients:
    """Parameter → [B, …], one backward pass per subject."""
    parameters = dict(module.named_parameters())
    rows = [
        torch.autograd.grad(losses(module, alone(batch, row)).sum(), tuple(parameters.values()))
        for row in range(batch.size)
    ]
    return {
        name: torch.stack(parts)
        for name, parts in zip(parameters, zip(*rows, strict=True), strict=True)
    }


def of_rates(gradients: Gradients) -> Tensor:
    """All rates' and weights' gradients, a row per subject."""
    return torch.cat([part.flatten(1) for name, part in gradients.items() if "decay" in name], 1)


def largest_error(found: Tensor, expected: Tensor) -> float:
    """Largest error of a row, relative to the row's norm."""
    assert found.shape == expected.shape
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def assert_bounds_closely(bounds: Tensor, norms: Tensor, most: float) -> None:
    """Assert that norms are what they are bounded by, but for rounding, and hardly less.

    Bounds have room for the rounding of every sum (docs/decisions/0041): a thousand times `most`.
    """
    row = norms.norm(dim=1, keepdim=True)
    assert float(((norms - bounds) / row).max()) < most
    assert largest_error(bounds, norms) < 1000 * most


def test_hooks_give_each_subject_the_gradient_it_has_alone(network, dtype, most, lengths):
    (module, losses), batch = build(network, dtype), people(lengths, dtype)
    expected = by_loop(module, losses, batch)
    wrapped = opacus.GradSampleModule(module, loss_reduction="sum")
    losses(wrapped._module, batch).sum().backward()
    found = {name: part.grad_sample for name, part in module.named_parameters()}
    assert largest_error(of_rates(found), of_rates(expected)) < most


def test_ghost_clipping_norms_and_sums_what_each_subject_has_alone(network, dtype, most, lengths):
    (module, losses), batch = build(network, dtype), people(lengths, dtype)
    expected = by_loop(deepcopy(module), losses, batch)
    norms = {name: part.flatten(1).norm(dim=1, keepdim=True) for name, part in expected.items()}
    total = torch.cat(list(norms.values()), 1).norm(dim=1)
    most_norm = float(total.mean())
    wrapped = GradSampleModuleFastGradientClipping(
        module, max_grad_norm=most_norm, use_ghost_clipping=True, loss_reduction="sum"
    )
    optimizer = torch.optim.SGD(module.parameters())
    DPTensorFastGradientClipping(wrapped, optimizer, losses(module, batch), "sum").backward()
    found = {name: part._norm_sample[:, None] for name, part in module.named_parameters()}
    bound = wrapped.get_norm_sample()
    assert_bounds_closely(of_rates(found), of_rates(norms), most)
    assert_bounds_closely(bound[:, None], total[:, None], most)

    share = (most_norm / (bound + 1e-6)).clamp(max=1)
    clipped = {n: torch.einsum("b,b...->...", share, part)[None] for n, part in expected.items()}
    summed = {name: part.grad[None] for name, part in module.named_parameters()}
    assert batch.size == 1 or 0 < int((share < 1).sum()) < batch.size
    assert largest_error(of_rates(summed), of_rates(clipped)) < most
