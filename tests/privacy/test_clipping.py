"""Per-person gradients against a loop over people, and what clipping promises of their sum.

The loop sees each person alone. Errors are relative to the norm of a person's whole gradient.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings, target
from hypothesis import strategies as st
from torch import nn

from healthfm_core.config import ObjectivesConfig, TrainConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import EVENT, NOW, SOFT, WEARABLE
from healthfm_core.models import HealthFM
from healthfm_core.objectives import OBJECTIVES, head_specs
from healthfm_core.privacy import norm_samplers
from healthfm_core.privacy.clipping import MARGIN, TOGETHER, ClippedSum
from healthfm_core.training.passes import ForwardPass, losses, private_passes
from tests.models.tiny import CONFIG, SHAPE, tiny_batch

ALL_OBJECTIVES = TrainConfig(
    objectives=ObjectivesConfig(
        next_visit=1.0,
        time_to_event=0.5,
        masked_reconstruction=0.7,
        next_event=0.3,
        predictive_coding=0.4,
        cross_modal=0.6,
        label=0.8,
        value_forecast=0.9,
    ),
    horizons_days=(365.0, 730.0),
)
MIXES = [
    ("ehr", "wearable", "genomics"),
    ("ehr",),
    ("ehr", "genomics"),
    ("ehr", "wearable"),
    ("wearable",),
]


def people() -> Batch:
    """Three people: everything, no wearable, no scores; rows of 6, 4 and 5 positions."""
    kind = torch.tensor(
        [
            [SOFT, EVENT, EVENT, WEARABLE, WEARABLE, NOW],
            [SOFT, EVENT, EVENT, NOW, 0, 0],
            [EVENT, WEARABLE, EVENT, EVENT, NOW, 0],
        ]
    )
    b, t = kind.shape
    g = torch.Generator().manual_seed(7)
    event, real = kind == EVENT, kind > 0
    statics = (kind[:, 0] == SOFT).int()
    position = torch.arange(t).expand(b, t)
    timed = real & (position >= statics[:, None])
    hours = position / 24.0 * timed
    wearable_slot = torch.tensor([[-1, -1, -1, 0, 1, -1], [-1] * 6, [-1, 0, -1, -1, -1, -1]])
    worn = torch.tensor([[True, True], [False, False], [True, False]])
    return tiny_batch(
        kind=kind,
        token=torch.randint(3, 9, (b, t), generator=g) * event,
        code=torch.randint(1, 5, (b, t), generator=g) * event,
        quantile=torch.rand(b, t, generator=g) * event,
        has_value=event,
        spread=torch.rand(b, t, 6, generator=g) * event.unsqueeze(-1),
        t_days=hours,
        gap_days=torch.full((b, t), 1 / 24) * timed,
        age_years=40.0 * timed,
        kv_end=((position + 1).minimum(real.sum(1, keepdim=True) - 1) * real).int(),
        n_static=statics,
        wearable_slot=wearable_slot,
        soft_slot=torch.where(kind == SOFT, 0, -1),
        wearable=torch.randn(b, 2, 2, 2, generator=g),
        wearable_mask=worn[:, :, None, None].expand(b, 2, 2, 2),
        panel=torch.randn(b, 3, generator=g),
        panel_mask=(kind[:, :1] == SOFT).expand(b, 3),
        query=(real.sum(1, keepdim=True) - 1),
        query_mask=torch.ones(b, 1, dtype=torch.bool),
        query_time_us=torch.zeros(b, 1, dtype=torch.int64),
        target=torch.randint(0, 2, (b, 1, 2), generator=g).float(),
        repeats=torch.randint(0, 3, (b, 1, 2), generator=g).float(),
        event_days=torch.tensor([[[20.0, torch.inf]], [[torch.inf, 400.0]], [[5.0, 80.0]]]),
        exposure_days=torch.full((b, 1), 900.0),
        label=torch.tensor([[1.0], [0.0], [1.0]]),
        later_code=torch.tensor([[1, 2, 2], [4, 0, 0], [3, 1, 0]]),
        later_spread=torch.rand(b, 3, 6, generator=g),
        later_has_value=torch.tensor([[True, True, False], [True] + [False] * 2, [False] * 3]),
        subject=torch.arange(b),
    )


def only(batch: Batch, row: int) -> Batch:
    return Batch(**{f.name: getattr(batch, f.name)[row : row + 1] for f in fields(Batch)})


def model_of(mix):
    heads = head_specs([o.name for o in OBJECTIVES if o.modality in (None, *mix)])
    torch.manual_seed(0)
    shape = replace(SHAPE, cross_horizons=2, channels=1, spread=6)
    config = CONFIG.model_copy(update={"summary_hours": 2.0, "summary_width": 4})
    model = HealthFM(config, shape, encoders=mix, heads=heads).train()
    with torch.no_grad():  # heads start near 0; here everything has to matter
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model


def passes_of(model) -> tuple[ForwardPass, ...]:
    return private_passes(ALL_OBJECTIVES, list(model.heads))


def per_person(model, batch: Batch, part: ForwardPass):
    """Losses by person; what is hidden is the same whenever a batch of this shape is read."""
    seed = torch.Generator().manual_seed(1)
    return losses(model, batch, (part,), ALL_OBJECTIVES, seed).per_subject


def of_one(model, batch: Batch, part: ForwardPass, row: int):
    """One person's loss: of them alone, or among the others where hiding depends on the batch."""
    if any(objective.masks_inputs for objective in part.objectives):
        return per_person(model, batch, part)[row]
    return per_person(model, only(batch, row), part)[0]


def by_loop(model, batch: Batch, part: ForwardPass) -> dict[str, torch.Tensor]:
    """Parameter → [B, …], one backward pass each; 0 where the loss does not depend on one."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    rows = []
    for row in range(batch.size):
        loss = of_one(model, batch, part, row)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        rows.append(
            [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(parameters, found, strict=True)
            ]
        )
    return {
        name: torch.stack(parts) for name, parts in zip(names, zip(*rows, strict=True), strict=True)
    }


def cases():
    found = []
    for mix in MIXES:
        for part in passes_of(model := model_of(mix)):
            heads = sorted(o.name for o in part.objectives if o.name in model.heads)
            found.append(pytest.param(mix, part, id=f"{'+'.join(mix)}/{'+'.join(heads)}"))
    return found


def clipped_by_loop(gradients, norms, group_of):
    """Σ over people of their gradients, each group of each person's scaled to its norm at most."""
    squares = dict.fromkeys(norms, 0.0)
    for name, rows in gradients.items():
        squares[group_of[name]] = squares[group_of[name]] + rows.flatten(1).square().sum(1)
    share = {g: (norms[g] / (squares[g].sqrt() * MARGIN)).clamp(max=1) for g in norms}
    return {
        name: torch.einsum("b,b...->...", share[group_of[name]], rows)
        for name, rows in gradients.items()
    }, share


def shares_used(clipped: ClippedSum) -> list[torch.Tensor]:
    """What each person's gradient will be multiplied by, batch after batch."""
    seen, shares_of = [], clipped._shares

    def spy(norms, losses_B):
        shares, lost = shares_of(norms, losses_B)
        seen.append(shares[TOGETHER])
        return shares, lost

    clipped._shares = spy
    return seen


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
@pytest.mark.parametrize(("mix", "part"), cases())
def test_every_parameter_gets_the_clipped_sum_of_a_loop_over_people(mix, part, mode):
    model, batch = model_of(mix), people()
    expected = by_loop(deepcopy(model), batch, part)
    whole = torch.cat([rows.flatten(1) for rows in expected.values()], 1).norm(dim=1)
    norm = float(whole.mean())
    group_of = dict.fromkeys(expected, TOGETHER)
    wanted, share = clipped_by_loop(expected, {TOGETHER: norm}, group_of)
    assert 0 < int((share[TOGETHER] < 1).sum()) < batch.size

    clipped = ClippedSum(model, {TOGETHER: norm}, group_of, mode)
    used = shares_used(clipped)
    assert not clipped.add(per_person(model, batch, part)).any()
    found = clipped.take(list(expected))
    clipped.close()
    (used,) = used
    if mode == "ghost":
        assert (used <= share[TOGETHER]).all(), "a bound is no shorter than the norm"
        assert (used > 0.995 * share[TOGETHER]).all(), "and not much longer"
        wanted = {n: torch.einsum("b,b...->...", used, rows) for n, rows in expected.items()}
    for name, total in wanted.items():
        assert float((found[name] - total).norm()) < 1e-5 * norm, name


@pytest.mark.parametrize("mix", MIXES, ids="+".join)
def test_hooks_give_every_parameter_the_gradient_of_each_person_alone(mix):
    batch = people()
    for part in passes_of(model_of(mix)):
        model = model_of(mix)
        expected = by_loop(deepcopy(model), batch, part)
        size = torch.cat([rows.flatten(1) for rows in expected.values()], 1).norm(dim=1)
        clipped = ClippedSum(model, {TOGETHER: 1.0}, dict.fromkeys(expected, TOGETHER), "hooks")
        kept = {}
        collect = clipped._collect

        def spy(attribute, collect=collect, kept=kept, names=clipped._names):
            found = collect(attribute)
            kept.update({names[p]: rows for p, rows in found.items()})
            return found

        clipped._collect = spy
        clipped.add(per_person(model, batch, part))
        for name, rows in expected.items():
            seen = kept.get(name, torch.zeros_like(rows))
            error = (seen - rows).flatten(1).norm(dim=1) / size
            assert float(error.max()) < 1e-5, (part.query, name)


def test_groups_are_clipped_each_by_its_own_norm():
    model, batch = model_of(MIXES[0]), people()
    part = passes_of(model)[0]
    expected = by_loop(deepcopy(model), batch, part)
    group_of = {name: name.split(".")[0] for name in expected}
    norms = {"encoders": 0.05, "backbone": 0.2, "heads": 0.01}
    wanted, share = clipped_by_loop(expected, norms, group_of)
    assert all((part < 1).any() for part in share.values())
    clipped = ClippedSum(model, norms, group_of, "hooks")
    clipped.add(per_person(model, batch, part))
    for name, total in clipped.take(list(expected)).items():
        assert torch.allclose(total, wanted[name], atol=1e-6), name


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
def test_several_batches_add_up_and_nobody_drawn_is_a_sum_of_zeros(mode):
    model, batch = model_of(MIXES[0]), people()
    part = passes_of(model)[0]
    names = [name for name, _ in model.named_parameters()]
    clipped = ClippedSum(model, {TOGETHER: 0.1}, dict.fromkeys(names, TOGETHER), mode)
    clipped.add(per_person(model, batch, part))
    once = clipped.take(names)
    for _ in range(3):
        clipped.add(per_person(model, batch, part))
    thrice = clipped.take(names)
    assert all(torch.allclose(thrice[n], 3 * once[n], atol=1e-6) for n in names)
    assert all(not total.any() for total in clipped.take(names).values())


class Windows(nn.Module):
    """A layer that takes the windows of all people as one long list."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.outer = nn.Linear(3, 1)

    def forward(self, x_BSd: torch.Tensor) -> torch.Tensor:
        flat = self.inner(x_BSd.flatten(0, 1)).view(*x_BSd.shape[:2], -1)
        return self.outer(flat.mean(1)).squeeze(1)


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
def test_a_layer_whose_rows_are_not_people_is_refused(mode):
    model = Windows().train()
    names = {name: TOGETHER for name, _ in model.named_parameters()}
    clipped = ClippedSum(model, {TOGETHER: 1.0}, names, mode)
    with pytest.raises(RuntimeError, match="rows for 3 people"):
        clipped.add(model(torch.ones(3, 7, 2)))


class Loose(nn.Module):
    """A leaf that hands its parameter out, where another module uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 1)

    def forward(self, x_Bd: torch.Tensor) -> torch.Tensor:
        return x_Bd @ self.inner.weight[0] + self.inner.bias


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
def test_a_parameter_that_no_hook_saw_is_refused(mode):
    model = Loose().train()
    names = {name: TOGETHER for name, _ in model.named_parameters()}
    clipped = ClippedSum(model, {TOGETHER: 1.0}, names, mode)
    with pytest.raises(RuntimeError, match="its per-person gradients are not known"):
        clipped.add(model(torch.ones(3, 2)))


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
def test_a_person_whose_loss_is_not_finite_is_named_and_adds_nothing(mode):
    model = nn.Linear(2, 1).train()
    clipped = ClippedSum(model, {TOGETHER: 1.0}, {"weight": TOGETHER, "bias": TOGETHER}, mode)
    x = torch.tensor([[1.0, 2.0], [torch.inf, 0.0], [0.5, 0.5]])
    assert clipped.add(model(x).squeeze(1)).tolist() == [False, True, False]
    assert all(not total.any() for total in clipped.take(["weight", "bias"]).values())
    assert not clipped.add(model(x[[0, 2]]).squeeze(1)).any()
    assert clipped.take(["weight", "bias"])["weight"].isfinite().all()


@settings(max_examples=40)
@given(
    scale=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
    norm=st.floats(1e-4, 1e3),
    mode=st.sampled_from(["ghost", "hooks"]),
    tokens=st.integers(1, 9),
)
def test_no_person_moves_the_sum_by_more_than_the_norm(scale, norm, mode, tokens):
    torch.manual_seed(len(scale))
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1)).train()
    names = [name for name, _ in model.named_parameters()]
    x = torch.randn(len(scale), tokens, 3)
    weight = torch.tensor(scale)

    def total(rows: torch.Tensor) -> torch.Tensor:
        clipped = ClippedSum(model, {TOGETHER: norm}, dict.fromkeys(names, TOGETHER), mode)
        if len(rows):
            clipped.add(model(x[rows]).sum((1, 2)) * weight[rows])
        found = torch.cat([part.flatten() for part in clipped.take(names).values()])
        clipped.close()
        return found.double()

    everyone = torch.arange(len(scale))
    moved = total(everyone) - total(everyone[1:])
    assert float(moved.norm()) <= norm * (1 + 1e-4)


class Straight(nn.Module):
    """One layer, whose input and whose output's gradient a test chooses."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.train()

    def moved(self, x: torch.Tensor, g: torch.Tensor, norm: float) -> float:
        """How far the first person moves the ghost sum, in norms it was to be clipped to."""
        names = [name for name, _ in self.named_parameters()]

        def total(rows: slice) -> torch.Tensor:
            clipped = ClippedSum(self, {TOGETHER: norm}, dict.fromkeys(names, TOGETHER), "ghost")
            clipped.add((self.layer(x[rows]) * g[rows]).flatten(1).sum(1))
            found = torch.cat([part.flatten() for part in clipped.take(names).values()])
            clipped.close()
            return found.double()

        others = total(slice(1, None)) if len(x) > 1 else 0.0
        return float((total(slice(None)) - others).norm()) / norm


def cancelling(people: int, tokens: int, width: int, left: float, shape: float, seed: int):
    """Gradients whose sum over a person's tokens cancels down to `left` of their sizes."""
    torch.manual_seed(seed)
    g = torch.randn(people, tokens, width)
    g = g - g.mean(1, keepdim=True) * (1 - left)
    common = torch.randn(people, 1, width) + shape * torch.randn(people, 1, 1)
    return common + left * torch.randn(people, tokens, width), g


LAYERS = {
    "linear": lambda width: nn.Linear(width, width),
    "one bias less": lambda width: nn.Linear(width, width, bias=False),
    "few columns": lambda width: nn.Linear(width, 8),
    "table": lambda width: nn.Embedding(4, width),
    "norm": lambda width: nn.RMSNorm(width),
}


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(LAYERS)),
    people=st.integers(1, 3),
    tokens=st.integers(16, 64),
    width=st.sampled_from([64, 256]),
    left=st.floats(-9, 0).map(lambda power: 10.0**power),
    shape=st.floats(0, 30),
    size=st.floats(-3, 6).map(lambda power: 10.0**power),
    seed=st.integers(0, 2**16),
)
def test_no_cancellation_takes_a_person_over_the_norm(
    name, people, tokens, width, left, shape, size, seed
):
    x, g = cancelling(people, tokens, width, left, shape, seed)
    layer = LAYERS[name](width)
    if name == "table":
        x = torch.randint(0, 4, (people, tokens))
    if name == "few columns":
        g = g[..., :8]
    found = Straight(layer).moved(x, size * g, 1.0)
    target(found)
    assert found <= 1 + 1e-4


@pytest.mark.parametrize("tokens", [32, 64])
@pytest.mark.parametrize("left", [1e-3, 1e-4, 1e-5])
def test_a_person_whose_tokens_cancel_stays_within_the_norm(tokens, left):
    x, g = cancelling(1, tokens, 256, left, 0.0, 0)
    assert Straight(nn.Linear(256, 256)).moved(x, 1e6 * g, 1.0) <= 1 + 1e-4


def test_a_bound_lies_close_above_the_norm_where_nothing_cancels():
    torch.manual_seed(0)
    x, g = torch.randn(4, 64, 256), torch.randn(4, 64, 256)
    layer = nn.Linear(256, 256)
    bounds = norm_samplers.linear_norms(layer, [x], g)
    true = (g.double().mT @ x.double()).flatten(1).norm(dim=1)
    assert ((bounds[layer.weight] > true) & (bounds[layer.weight] < 1.01 * true)).all()
    bias = g.double().sum(1).norm(dim=1)
    assert ((bounds[layer.bias] > bias) & (bounds[layer.bias] < 1.01 * bias)).all()
