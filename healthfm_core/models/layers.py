"""The leaf modules everything is built of, laid out so that per-subject gradients exist.

Opacus takes a gradient per subject at leaf modules with one positional tensor input whose first
dimension is the subject. Hence the rules kept here: parameters only in such leaves, no buffers on
them, no BatchNorm, no nn.MultiheadAttention, no tied embeddings, Linear inputs of 2 or 3
dimensions. What Opacus has to know of our own leaves is in `training.gradients.layer_samplers`: it
takes seconds to load, which only private training has to wait for.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["gelu", "swiglu"]


class PerSubjectParameter(nn.Module):
    """A parameter given out once per subject, so that its gradient comes back per subject.

    Args:
        value: Initial value, any shape.
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(value)

    def forward(self, subject_B: Float[Tensor, " B"]) -> Float[Tensor, "B ..."]:
        """Return [B, *shape]; `subject_B` only says how many, and must not require a gradient."""
        return self.weight.unsqueeze(0).repeat(subject_B.shape[0], *([1] * self.weight.dim()))


class Adapter(nn.Module):
    """A low-rank addition to a linear map, zero at the start (LoRA, Hu et al. 2022).

    Args:
        width: Of the input.
        out: Of the output.
        rank: r; the scale is 1.
    """

    def __init__(self, width: int, out: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, out, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T o"]:
        """Return what is added."""
        return self.up(self.down(x))


class FeedForward(nn.Module):
    """Position-wise network: GELU, or SwiGLU with the same number of parameters."""

    def __init__(self, width: int, hidden: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        hidden = max(8, hidden * 2 // 3) if self.gated else hidden
        self.up = nn.Linear(width, 2 * hidden if self.gated else hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T d"]:
        """Return the network's output, without the residual."""
        h = self.up(x)
        if self.gated:
            gate, h = h.chunk(2, dim=-1)
            h = nn.functional.silu(gate) * h
        else:
            h = nn.functional.gelu(h)
        return self.dropout(self.down(h))
