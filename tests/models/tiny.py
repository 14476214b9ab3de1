"""A batch of two subjects and a model small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import EVENT, NOW, SOFT, STATIC, WEARABLE
from healthfm_core.models import HealthFM, ModelShape
from healthfm_core.objectives import head_specs

SHAPE = ModelShape(
    tokens=9,
    codes=5,
    mask_token=2,
    targets=2,
    panel=("PGS0", "PGS1", "PGS2"),
    windows=2,
    features=2,
    pieces=2,
)
CONFIG = ModelConfig(
    name="test",
    layers=2,
    width=8,
    heads=2,
    ffn=16,
    dropout=0.0,
    wearable_layers=1,
    wearable_width=8,
    wearable_heads=2,
    prs_tokens=1,
    prs_width=8,
)


def tiny_model(
    encoders: tuple[str, ...] = ("ehr", "wearable", "genomics"),
    heads: tuple[str, ...] = ("next_visit",),
    spread: int = 0,
    **changes: Any,
) -> HealthFM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CONFIG.model_copy(update=changes)
        shape = replace(SHAPE, spread=spread)
        return HealthFM(config, shape, encoders=encoders, heads=head_specs(heads))


def tiny_batch(**changes: Tensor) -> Batch:
    """Row 0: PRS slot, static, two events, a worn hour, NOW. Row 1: static, event, NOW, padding."""
    kind = torch.tensor(
        [[SOFT, STATIC, EVENT, EVENT, WEARABLE, NOW], [STATIC, EVENT, EVENT, NOW, 0, 0]]
    )
    g = torch.Generator().manual_seed(1)
    rows = len(changes.get("kind", kind))
    fields: dict[str, Tensor] = {
        "kind": kind,
        "token": torch.tensor([[0, 3, 5, 6, 0, 0], [3, 7, 8, 0, 0, 0]]),
        "code": torch.tensor([[0, 1, 2, 2, 0, 0], [1, 3, 3, 0, 0, 0]]),
        "quantile": torch.tensor([[0, 0, 0.5, -0.5, 0, 0], [0, 0.2, 0, 0, 0, 0]]),
        "spread": torch.zeros(*changes.get("kind", kind).shape, 0),
        "has_value": torch.tensor(
            [[False, False, True, True, False, False], [False, True, False, False, False, False]]
        ),
        "t_days": torch.tensor([[0, 0, -400.0, -30.0, 0, 1], [0, -3.0, 0, 0, 0, 0]]),
        "gap_days": torch.tensor([[0, 0, 0, 370.0, 30.0, 1.0], [0, 0, 3.0, 0, 0, 0]]),
        "age_years": torch.tensor([[0, 0, 40.0, 41.0, 41.1, 41.1], [0, 70.0, 70.0, 70.0, 0, 0]]),
        "kv_end": torch.tensor([[2, 2, 3, 4, 5, 5], [1, 2, 3, 3, 0, 0]], dtype=torch.int32),
        "n_static": torch.tensor([2, 1], dtype=torch.int32),
        "wearable_slot": torch.tensor([[-1, -1, -1, -1, 0, -1], [-1] * 6]),
        "soft_slot": torch.tensor([[0, -1, -1, -1, -1, -1], [-1] * 6]),
        "wearable": torch.randn(2, 1, 2, 2, generator=g),
        "wearable_mask": torch.tensor([[[[True, True], [True, False]]], [[[False] * 2] * 2]]),
        "panel": torch.randn(2, 3, generator=g),
        "panel_mask": torch.tensor([[True, True, False], [False] * 3]),
        "query": torch.tensor([[5], [3]]),
        "query_mask": torch.ones(2, 1, dtype=torch.bool),
        "query_time_us": torch.zeros(2, 1, dtype=torch.int64),
        "target": torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]),
        "repeats": torch.zeros(2, 1, 2),
        "event_days": torch.full((2, 1, 2), torch.inf),
        "exposure_days": torch.ones(2, 1),
        "label": torch.tensor([[1.0], [0.0]]),
        "later_code": torch.zeros(rows, 0, dtype=torch.int64),
        "later_spread": torch.zeros(rows, 0, changes.get("spread", torch.zeros(1, 0)).shape[-1]),
        "later_has_value": torch.zeros(rows, 0, dtype=torch.bool),
        "subject": torch.tensor([0, 1]),
    }
    return Batch(**{**fields, **changes})
