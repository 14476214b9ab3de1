"""Each person's gradient, clipped, and their sum: what the noise is added to.

One backward pass tells every person's gradient norm, a second one adds up the gradients, each
person's loss weighted so that no one moves the sum by more than the norm (``ghost``); or Opacus's
hooks keep a gradient per person, which are clipped and added (``hooks``). The unit of privacy is
the row: it must be a person, the whole of what they bring to the step. Nothing here adds noise,
and the norms are about people: they stay in here.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)
from torch import Tensor, nn

from healthfm_core.config.privacy import GradSample
from healthfm_core.privacy import norm_samplers
from healthfm_core.privacy.norm_samplers import length

MARGIN: Final = 1 + 1e-4
"""Norms are taken this much larger: adding up those of a person's parameters rounds, too."""

TOGETHER: Final = "all"
"""The group of all parameters where they are clipped together."""

Parameters = dict[nn.Parameter, Tensor]

__all__ = ["MARGIN", "TOGETHER", "ClippedSum", "norm_samplers"]


class ClippedSum:
    """The sum of clipped gradients of a model's parameters, batch after batch.

    Every row of a batch is a person. The parameters of one group are clipped together: a person's
    gradients of them, side by side, have at most the group's norm.

    Args:
        model: Parameters in leaf modules with one tensor as input, the person first. What is not
            trained must not require a gradient.
        norms: Group → norm it is clipped to.
        group_of: Parameter name → its group.
        grad_sample: How per-person gradients are found; ``ghost`` takes one group only.
    """

    def __init__(
        self,
        model: nn.Module,
        norms: Mapping[str, float],
        group_of: Mapping[str, str],
        grad_sample: GradSample = "ghost",
    ) -> None:
        if grad_sample == "ghost" and len(norms) != 1:
            raise ValueError("ghost clipping takes one norm for all parameters")
        self._model = model
        self._norms = dict(norms)
        self._names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        self._groups = {p: group_of[name] for p, name in self._names.items()}
        self._sums: Parameters = {}
        self._add = self._add_ghost if grad_sample == "ghost" else self._add_hooks
        wrap: Any = (
            GradSampleModuleFastGradientClipping if grad_sample == "ghost" else GradSampleModule
        )
        self._hooks = wrap(model, loss_reduction="sum")

    def add(self, losses_B: Float[Tensor, " B"]) -> Bool[Tensor, " B"]:
        """Add the clipped gradients of a batch's losses; return whose were not finite.

        Where any was not, nothing is added: leave those people out and come again. The model is in
        training mode, and the losses come from one pass through it.

        Raises:
            RuntimeError: A parameter has another number of rows than there are people, or moves
                the losses without a hook having seen it: either breaks what is promised.
        """
        with _quiet():
            clipped_sums, lost = self._add(losses_B)
        for p, total in clipped_sums.items():
            self._sums[p] = self._sums[p] + total if p in self._sums else total
        return lost

    def take(self, live: Collection[str]) -> dict[str, Tensor]:
        """Return the sums of the parameters `live`, 0 where nobody moved one, and begin anew.

        Which are live must not depend on who was drawn.

        Raises:
            RuntimeError: A parameter that is not live was moved.
        """
        moved = {self._names[p]: total for p, total in self._sums.items()}
        if not moved.keys() <= set(live):
            raise RuntimeError("a parameter was moved that this step does not train")
        self._sums = {}
        return {
            name: moved[name] if name in moved else torch.zeros_like(p)
            for p, name in self._names.items()
            if name in live
        }

    def close(self) -> None:
        """Take the hooks off the model."""
        self._hooks.remove_hooks()

    def _add_ghost(self, losses_B: Tensor) -> tuple[Parameters, Tensor]:
        """First pass: norms, by hooks, and no weight's gradient; second pass: the clipped sum."""
        torch.autograd.grad(
            losses_B.sum(), self._first_pass(), retain_graph=True, allow_unused=True
        )
        norms = self._collect("_norm_sample")
        shares, lost = self._shares(norms, losses_B)
        if lost.any():
            return {}, lost
        self._hooks.disable_hooks()
        (share,) = shares.values()
        clipped_sums = self._gradients((share * losses_B).sum())
        self._hooks.enable_hooks()
        self._check(clipped_sums, norms)
        return clipped_sums, lost

    def _add_hooks(self, losses_B: Tensor) -> tuple[Parameters, Tensor]:
        reached = self._gradients(losses_B.sum())
        samples = self._collect("grad_sample")
        self._check(reached, samples)
        norms = {p: length(sample.flatten(1)).to(sample.dtype) for p, sample in samples.items()}
        shares, lost = self._shares(norms, losses_B)
        if lost.any():
            return {}, lost
        return {
            p: torch.einsum("b,b...->...", shares[self._groups[p]], sample)
            for p, sample in samples.items()
        }, lost

    def _shares(self, norms: Parameters, losses_B: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return, per group, what each person's gradient is multiplied by; and who has none."""
        squares = {group: torch.zeros_like(losses_B) for group in self._norms}
        for p, norm_B in norms.items():
            if norm_B.shape != losses_B.shape:
                raise RuntimeError(
                    f"{self._names[p]} has gradients of {len(norm_B)} rows for {len(losses_B)} "
                    "people: the unit of privacy would not be the person"
                )
            squares[self._groups[p]] = squares[self._groups[p]] + norm_B.detach().square()
        norm_of_group = {group: square.sqrt() for group, square in squares.items()}
        finite = torch.stack([norm.isfinite() for norm in norm_of_group.values()]).all(0)
        lost = ~(finite & losses_B.detach().isfinite())
        return {
            group: (self._norms[group] / (norm * MARGIN)).clamp(max=1)
            for group, norm in norm_of_group.items()
        }, lost

    def _check(self, reached: Parameters, seen: Parameters) -> None:
        for p in reached.keys() ^ seen.keys():
            raise RuntimeError(
                f"{self._names[p]} moves the losses, and its per-person gradients are not known"
            )

    def _gradients(self, loss: Tensor) -> Parameters:
        gradients = torch.autograd.grad(loss, list(self._names), allow_unused=True)
        return {p: g for p, g in zip(self._names, gradients, strict=True) if g is not None}

    def _first_pass(self) -> list[nn.Parameter]:
        """Return parameters whose gradients lead through every layer, and cost little themselves.

        A linear map's bias stands for its weight, whose gradient is a third of a backward pass.
        """
        spared = {
            module.weight
            for module in self._model.modules()
            if isinstance(module, nn.Linear) and module.bias is not None
        }
        return [p for p in self._names if p not in spared]

    def _collect(self, attribute: str) -> Parameters:
        """Take what the hooks left on the parameters, and all they keep for a next pass."""
        samples = {p: getattr(p, attribute, None) for p in self._names}
        for p in self._names:
            setattr(p, attribute, None)
            p._forward_counter = 0  # type: ignore[attr-defined]
        for module in self._model.modules():
            module.__dict__.pop("activations", None)
            module.__dict__.pop("max_batch_len", None)
        return {p: sample for p, sample in samples.items() if sample is not None}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch from remarking that a layer's inputs (codes, times) need no gradient."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield
