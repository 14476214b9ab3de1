"""The continuous-time transformer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, cast

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch import Batch
from healthfm_core.data.sequences import KINDS
from healthfm_core.kernels.ct_attention import Variant, ct_attention
from healthfm_core.models.layers import FeedForward, PerSubjectParameter

HALF_LIFE_MIN_DAYS = 1 / 24
HALF_LIFE_MAX_DAYS = 20 * 365.25
FIRST_HALF_LIFE_DAYS = 1 / 24
LAST_HALF_LIFE_DAYS = 10 * 365.25
FLOOR_LOGIT = -40.0
"""Log rate of the optional component that never decays: half-life of 10^17 days."""

LOG_RATES = (
    math.log(math.log(2) / HALF_LIFE_MAX_DAYS),
    math.log(math.log(2) / HALF_LIFE_MIN_DAYS),
)
"""The range of log λ, per day."""

_VARIANTS: dict[str, Variant] = {
    "logbias": "logbias",
    "postmul": "postmul",
    "logitmul": "logitmul",
    "rope_days": "none",
    "sinusoid": "none",
}


def initial_log_rates(
    heads: int,
    rates: int,
    first_days: float = FIRST_HALF_LIFE_DAYS,
    last_days: float = LAST_HALF_LIFE_DAYS,
) -> Float[Tensor, "H R"]:
    """Return log λ with half-lives log-spaced from the first to the last, staggered over the heads.

    Head h takes R neighbouring places of H + R − 1, so some heads have no slow component at all
    and some no fast one; a slow one in every head would defeat the skipping of far tiles.
    """
    places = heads + rates - 1
    span = torch.linspace(math.log(first_days), math.log(last_days), max(places, 2))
    log_half_life = torch.stack([span[h : h + rates] for h in range(heads)])
    return math.log(math.log(2)) - log_half_life


class DecayRates(nn.Module):
    """Rates and weights of each head's kernel, given out per subject."""

    def __init__(
        self,
        heads: int,
        rates: int,
        floor: bool,
        start_days: tuple[float, float] = (FIRST_HALF_LIFE_DAYS, LAST_HALF_LIFE_DAYS),
    ) -> None:
        super().__init__()
        self.floor = floor
        self.log_rate = PerSubjectParameter(initial_log_rates(heads, rates, *start_days))
        self.logit = PerSubjectParameter(torch.zeros(heads, rates + floor))

    def forward(
        self, subject_B: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B H R"], Float[Tensor, "B H R"]]:
        """Return λ per day (half-lives held in [1 h, 20 y]) and w, which sums to 1."""
        log_rate = self.log_rate(subject_B).clamp(*LOG_RATES)
        if self.floor:
            log_rate = nn.functional.pad(log_rate, (1, 0), value=FLOOR_LOGIT)
        weights = torch.softmax(self.logit(subject_B), dim=-1)
        return log_rate.exp(), weights * (1 - 1e-6 * weights.shape[-1]) + 1e-6


@torch.no_grad()
def hold_half_lives(model: nn.Module) -> None:
    """Bring every half-life back into its range: beyond it there is no gradient to come back by."""
    for module in model.modules():
        if isinstance(module, DecayRates):
            module.log_rate.weight.clamp_(*LOG_RATES)


class TimeFeatures(nn.Module):
    """Time at the input: since the row's first event, since the last one, and age.

    Everything is counted from the past. The design names days to the last event instead; in a row
    with several SEPs that would tell an early visit how much record is still to come.
    """

    PERIODS_DAYS = (0.25, 1.0, 7.0, 30.0, 365.25, 3652.5)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * len(self.PERIODS_DAYS) + 3, width)

    def forward(self, batch: Batch) -> Float[Tensor, "B T d"]:
        """Return one vector per position, 0 for statics."""
        timed = _timed(batch)
        elapsed = (batch.t_days - first_time(batch)).masked_fill(~timed, 0)
        return self.of(elapsed, batch.gap_days, batch.age_years) * timed.unsqueeze(-1)

    def of(
        self,
        elapsed: Float[Tensor, "B T"],
        gap_days: Float[Tensor, "B T"],
        age_years: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B T d"]:
        """Return the vectors of tokens `elapsed` days after the first one of their row."""
        turns = [elapsed * (2 * math.pi / period) for period in self.PERIODS_DAYS]
        features = torch.stack(
            [f(turn) for turn in turns for f in (torch.sin, torch.cos)]
            + [elapsed.clamp_min(0).log1p(), gap_days.log1p(), age_years / 50],
            dim=-1,
        )
        return self.project(features)


def first_time(batch: Batch) -> Float[Tensor, "B 1"]:
    """Return the time of each row's first token that has one, in the batch's days."""
    return batch.t_days.masked_fill(~_timed(batch), math.inf).amin(1, keepdim=True)


def _timed(batch: Batch) -> Tensor:
    position = torch.arange(batch.kind.shape[1], device=batch.kind.device)
    return (position[None] >= batch.n_static[:, None]) & (batch.kind > 0)


class Block(nn.Module):
    """Pre-norm continuous-time attention, then a feed-forward network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.variant: Variant = _VARIANTS[config.attention]
        self.rotary = config.attention == "rope_days"
        self.norm_attention = nn.RMSNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.decay = DecayRates(config.heads, config.rates, config.floor, config.start_half_lives)
        self.out = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_ffn = nn.RMSNorm(config.width)
        self.ffn = FeedForward(config.width, config.ffn, config.activation, config.dropout)

    def forward(
        self, x: Float[Tensor, "B T d"], batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None = None
    ) -> Float[Tensor, "B Q d"]:
        """Return the block's output at every position, or only at the positions `at_BQ`."""
        q, k, v = self.project(x)
        t_days, kv_end = batch.t_days, batch.kv_end
        if at_BQ is not None:
            x, q = gather(x, at_BQ), gather(q, at_BQ)
            t_days, kv_end = t_days.gather(1, at_BQ), kv_end.gather(1, at_BQ)
        q, k, v = self.split(q, t_days), self.split(k, batch.t_days), self.split(v)
        return self.read(x, q, k, v, t_days, batch.t_days, kv_end, batch.n_static)

    def project(self, x: Float[Tensor, "B T d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [B, T, d]."""
        q, k, v = self.qkv(self.norm_attention(x)).chunk(3, dim=-1)
        return q, k, v

    def split(self, x: Float[Tensor, "B T d"], t_days: Tensor | None = None) -> Tensor:
        """Return `x` by heads [B, H, T, D], turned by its times in the ablation that does that."""
        by_head = x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        return _rotate(by_head, t_days) if self.rotary and t_days is not None else by_head

    def read(
        self,
        x: Float[Tensor, "B Q d"],
        q: Float[Tensor, "B H Q D"],
        k: Float[Tensor, "B H T D"],
        v: Float[Tensor, "B H T D"],
        t_q: Float[Tensor, "B Q"],
        t_k: Float[Tensor, "B T"],
        kv_end: Tensor,
        n_static: Tensor,
    ) -> Float[Tensor, "B Q d"]:
        """Return `x` with what it reads from the keys before `kv_end`, fed forward."""
        rates = self.decay(t_k[:, 0])
        attended = ct_attention(q, k, v, t_q, t_k, kv_end, n_static, *rates, variant=self.variant)
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.ffn(self.norm_ffn(x))

    def effective_context(self, x: Float[Tensor, "B T d"], batch: Batch) -> Float[Tensor, ""]:
        """Return how many days back the block looks: mean Σ_j A_ij Δ_ij over heads and tokens.

        Read off with the kernel itself: the values it mixes are times instead of vectors.
        """
        q, k, v = self.project(x)
        q, k, v = self.split(q, batch.t_days), self.split(k, batch.t_days), self.split(v)
        timed = _timed(batch).to(v.dtype)
        marks = torch.zeros_like(v)
        marks[..., 0], marks[..., 1] = (batch.t_days * timed)[:, None], timed[:, None]
        t, rates = batch.t_days, self.decay(batch.t_days[:, 0])
        end, static, variant = batch.kv_end, batch.n_static, self.variant
        read = ct_attention(q, k, marks, t, t, end, static, *rates, variant=variant)
        days = t[:, None] * read[..., 1] - read[..., 0]
        return (days * timed[:, None]).sum() / (timed.sum() * self.heads).clamp_min(1)


def gather(x_BTd: Float[Tensor, "B T d"], at_BQ: Int64[Tensor, "B Q"]) -> Float[Tensor, "B Q d"]:
    """Return each row's vectors at its own positions `at_BQ`."""
    return x_BTd.gather(1, at_BQ.unsqueeze(-1).expand(-1, -1, x_BTd.shape[-1]))


def _rotate(
    x_BHTD: Float[Tensor, "B H T D"], t_days_BT: Float[Tensor, "B T"]
) -> Float[Tensor, "B H T D"]:
    """Rotate by angles that are days times log-spaced frequencies (ablation ``rope_days``)."""
    half = x_BHTD.shape[-1] // 2
    first, last = math.log10(FIRST_HALF_LIFE_DAYS), math.log10(LAST_HALF_LIFE_DAYS)
    period = torch.logspace(first, last, half, device=x_BHTD.device, dtype=t_days_BT.dtype)
    angle = t_days_BT[:, None, :, None] * (2 * math.pi / period)
    cos, sin = angle.cos().to(x_BHTD.dtype), angle.sin().to(x_BHTD.dtype)
    a, b = x_BHTD[..., :half], x_BHTD[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Sums(nn.Module):
    """What every token adds by itself, summed over the tokens a position may see.

    Attention gives weighted means: how many tokens there are, and which are not, it tells badly.

    Args:
        width: d.
        hidden: Width of the network each token goes through.
        dropout: Its dropout.
    """

    SCALE: Final = 1 / 16

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.ffn = FeedForward(width, hidden, "gelu", dropout)

    def forward(
        self, x: Float[Tensor, "B T d"], kv_end_BQ: Int32[Tensor, "B Q"]
    ) -> Float[Tensor, "B Q d"]:
        """Return, for each query, the sum over the positions before its `kv_end`."""
        before = nn.functional.pad(self.of(x).cumsum(1), (0, 0, 1, 0))
        return gather(before, kv_end_BQ.long())

    def of(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T d"]:
        """Return what each token adds."""
        return self.ffn(self.norm(x)) * self.SCALE


class Backbone(nn.Module):
    """Type and time embeddings, then the blocks; shared by every site whatever its modalities."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.has_sums = config.sums
        self.kind = nn.Embedding(KINDS, config.width)
        nn.init.normal_(self.kind.weight, std=config.width**-0.5)
        self.has_time = config.time_features
        if config.time_features:
            self.time = TimeFeatures(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        if config.sums:
            self.sums = Sums(config.width, config.ffn, config.dropout)
        with torch.no_grad():
            for module in self.blocks:
                block = cast(Block, module)
                for layer in (block.out, block.ffn.down):
                    layer.weight.mul_((2 * config.layers) ** -0.5)

    def forward(
        self, x: Float[Tensor, "B T d"], batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None = None
    ) -> Float[Tensor, "B Q d"]:
        """Return the states at `at_BQ`, or at every position.

        The last block computes what is asked for and nothing else; earlier ones everything.
        """
        x = self.embed(x, batch)
        added = self.added(x, batch, at_BQ) if self.has_sums else 0.0
        *early, last = self.blocks
        for block in early:
            x = block(x, batch)
        return self.norm(last(x, batch, at_BQ) + added)

    def added(
        self, x: Float[Tensor, "B T d"], batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None = None
    ) -> Float[Tensor, "B Q d"]:
        """Return the sums that the states at `at_BQ` read, `x` being what the first block gets."""
        kv_end = batch.kv_end if at_BQ is None else batch.kv_end.gather(1, at_BQ)
        return cast(Tensor, self.sums(x, kv_end))

    def embed(self, x: Float[Tensor, "B T d"], batch: Batch) -> Float[Tensor, "B T d"]:
        """Return what goes into the first block: the encoders' vectors, kinds and times."""
        return self.dropout(self.at_times(x + self.kind(batch.kind), batch))

    def at_times(self, x: Float[Tensor, "B T d"], batch: Batch) -> Float[Tensor, "B T d"]:
        """Return `x` with its times added, unless the attention alone is to tell them apart."""
        return x + self.time(batch) if self.has_time else x


@torch.no_grad()
def context_monitors(
    backbone: Backbone, x: Float[Tensor, "B T d"], batch: Batch
) -> dict[str, float]:
    """Return each layer's effective context in days, and the weight of its floor if it has one.

    Args:
        backbone: In evaluation mode.
        x: What the encoders make of the batch.
        batch: A few rows; what is returned is a mean over all their tokens.
    """
    found: dict[str, float] = {}
    x = backbone.embed(x, batch)
    for layer, block in enumerate(cast(Iterable[Block], backbone.blocks)):
        found[f"layer{layer}/effective_context_days"] = float(block.effective_context(x, batch))
        if block.decay.floor:
            weights = block.decay.logit.weight.softmax(-1)
            found[f"layer{layer}/floor_weight"] = float(weights[..., 0].mean())
        x = block(x, batch)
    return found


def all_half_lives(backbone: Backbone) -> list[list[float]]:
    """Return every half-life in days, a list of H · R per layer."""
    return [
        (math.log(2) / cast(Block, block).decay.log_rate.weight.detach().exp())
        .clamp(HALF_LIFE_MIN_DAYS, HALF_LIFE_MAX_DAYS)
        .flatten()
        .tolist()
        for block in backbone.blocks
    ]


def half_life_monitors(backbone: Backbone) -> dict[str, float]:
    """Return min, median and max half-life in days of each layer, as metrics by name.

    All below a week, or all above ten years, is one failure in two directions: the kernel decayed
    to zero, or to a constant.
    """
    found: dict[str, float] = {}
    for layer, days in enumerate(map(sorted, all_half_lives(backbone))):
        for name, value in (("min", days[0]), ("median", days[len(days) // 2]), ("max", days[-1])):
            found[f"layer{layer}/half_life_{name}_days"] = value
    return found
