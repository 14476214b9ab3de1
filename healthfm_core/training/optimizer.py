"""The optimiser of a site's steps, and at which multiple of the rate a parameter learns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import nn

from healthfm_core.config import TrainConfig
from healthfm_core.models.decay import log_rates_of

EPS: Final = 1e-8
MEMORIES: Final = (
    ".memory",
    ".expert_memory",
    ".remembered",
    ".remembered_static",
    ".query_time",
)
"""Ends of the names of the modules that add to a query's state beside the attention blocks."""
RATE_MULTIPLE: Final = "rate_multiple"
"""Option of the optimiser's groups: their learning rate as a multiple of the round's."""


def optimizer_for(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW; only matrices of linear maps decay, not embeddings, norms, biases or rates."""
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    half_lives = {id(log_rate) for log_rate in log_rates_of(model)}
    quick = tuple(n for n, _ in model.named_modules() if n.endswith(MEMORIES))
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_matrix = isinstance(module, nn.Linear) and name == "weight"
            multiple, eps = 1.0, EPS
            if path.startswith(("heads.", *quick)):
                multiple = config.lr_memory
            elif id(parameter) in half_lives:
                multiple = config.lr_half_lives
            elif path.endswith(".linear_logit"):
                multiple, eps = config.lr_linear, config.eps_linear
            if parameter.requires_grad:
                decay = config.weight_decay if is_matrix else 0.0
                groups.setdefault((decay, multiple, eps), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "eps": eps, RATE_MULTIPLE: multiple}
            for (decay, multiple, eps), parameters in groups.items()
        ],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )


def set_learning_rate(groups: Iterable[dict[str, Any]], rate: float) -> None:
    """Set the rate of an optimiser's groups of parameters, each at its own multiple."""
    for options in groups:
        options["lr"] = rate * options[RATE_MULTIPLE]
