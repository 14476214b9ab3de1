"""Inputs that are hard on continuous-time attention, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from healthfm_core.kernels.ct_attention.inputs import Inputs

MINUTE, YEAR = 1 / 1440, 365.25


@dataclass(frozen=True)
class Case:
    """Sizes of random inputs, and what is hard about their times."""

    queries: int
    keys: int | None = None
    subjects: int = 2
    heads: int = 2
    channels: int = 32
    rates: int = 3
    statics: int = 0
    span_days: float = 8 * YEAR
    tie_every: int = 3
    causal: bool = True
    change: Callable[[Inputs], Inputs] | None = None

    def inputs(self, seed: int = 0) -> Inputs:
        """Return float32 inputs; half of the subjects have one static token more."""
        g = torch.Generator().manual_seed(seed)
        b, h, d, n = self.subjects, self.heads, self.channels, self.keys or self.queries
        step = self.span_days / max(1, n) * self.tie_every
        t = torch.rand(b, n, generator=g).mul(self.span_days).sort(1).values
        if step:
            t = (t / step).round() * step
        t = t - t[:, -1:]
        n_static = (torch.arange(b) % 2 + self.statics).clamp_max(n) * bool(self.statics)
        kv_end = torch.full((b, n), n)
        if self.causal:
            kv_end = torch.searchsorted(t, t, right=True).maximum(n_static[:, None])
        at = torch.arange(n).expand(b, n)
        if self.keys is not None:
            at = torch.randint(0, n, (b, self.queries), generator=g)
        q = torch.randn(b, h, at.shape[1], d, generator=g)
        k, v = (torch.randn(b, h, n, d, generator=g) for _ in range(2))
        log_rate = torch.empty(b, h, self.rates).uniform_(math.log(1e-4), math.log(17), generator=g)
        weights = torch.softmax(torch.randn(b, h, self.rates, generator=g), -1)
        found = Inputs(
            q, k, v, t.gather(1, at), t, kv_end.gather(1, at), n_static, log_rate.exp(), weights
        )
        return self.change(found) if self.change else found


def _shuffled(x: Inputs) -> Inputs:
    order = torch.randperm(x.tk_days_BT.shape[1], generator=torch.Generator().manual_seed(1))
    t = x.tk_days_BT[:, order]
    causal = torch.arange(1, t.shape[1] + 1).expand_as(x.kv_end_BQ)
    return x._replace(tq_days_BQ=t, tk_days_BT=t, kv_end_BQ=causal)


def _gap(days: float) -> Callable[[Inputs], Inputs]:
    def change(x: Inputs) -> Inputs:
        t = x.tk_days_BT.clone()
        t[:, : t.shape[1] // 2] -= days
        return x._replace(tq_days_BQ=t, tk_days_BT=t)

    return change


def _later(days: float) -> Callable[[Inputs], Inputs]:
    """Ask long after the last event, where nothing is near and no rate is slow."""

    def change(x: Inputs) -> Inputs:
        return x._replace(tq_days_BQ=x.tq_days_BQ + days, rates_BHR=x.rates_BHR.clamp_min(1.0))

    return change


def _blind(x: Inputs) -> Inputs:
    kv_end = x.kv_end_BQ.clone()
    kv_end[0, :3], kv_end[1] = 0, 0
    return x._replace(kv_end_BQ=kv_end)


def _any_prefix(x: Inputs) -> Inputs:
    g = torch.Generator().manual_seed(2)
    return x._replace(
        kv_end_BQ=torch.randint(0, x.tk_days_BT.shape[1] + 1, x.kv_end_BQ.shape, generator=g)
    )


def _most_of_it(x: Inputs) -> Inputs:
    g = torch.Generator().manual_seed(3)
    n = x.tk_days_BT.shape[1]
    return x._replace(kv_end_BQ=torch.randint(n - n // 5, n + 1, x.kv_end_BQ.shape, generator=g))


def _times(rate: float) -> Callable[[Inputs], Inputs]:
    return lambda x: x._replace(rates_BHR=x.rates_BHR * rate)


def _at_least(rate: float) -> Callable[[Inputs], Inputs]:
    return lambda x: x._replace(rates_BHR=x.rates_BHR.clamp_min(rate))


def _by_position(x: Inputs) -> Inputs:
    """Lay queries, keys and values out as a projection does: heads side by side."""

    def laid(part: Tensor) -> Tensor:
        return part.transpose(1, 2).contiguous().transpose(1, 2)

    return x._replace(q_BHQD=laid(x.q_BHQD), k_BHTD=laid(x.k_BHTD), v_BHTD=laid(x.v_BHTD))


_PLAIN = Case(100)
CASES: dict[str, Case] = {
    **{f"{n} tokens": Case(n) for n in (1, 2, 16, 63, 64, 65, 100, 513)},
    **{f"{d} channels": Case(70, channels=d) for d in (1, 5, 8, 16, 64, 128)},
    **{f"{r} rates": Case(70, rates=r) for r in (1, 2, 8)},
    "no ties": replace(_PLAIN, tie_every=0),
    "all at once": replace(_PLAIN, span_days=0.0),
    "minutes": replace(_PLAIN, span_days=100 * MINUTE),
    "80 years": replace(_PLAIN, span_days=80 * YEAR),
    "a gap of 80 years": replace(_PLAIN, span_days=1.0, change=_gap(80 * YEAR)),
    "asked after 80 years": Case(40, keys=90, span_days=1.0, change=_later(80 * YEAR)),
    "few queries": Case(5, keys=150),
    "more queries than keys": Case(90, keys=20),
    "statics": replace(_PLAIN, statics=5),
    "statics fill a square": Case(150, statics=40),
    "both directions": Case(150, causal=False),
    "both directions with statics": Case(150, causal=False, statics=3),
    "not sorted": replace(_PLAIN, change=_shuffled),
    "nothing seen": replace(_PLAIN, change=_blind),
    "both directions, most of it": Case(150, change=_most_of_it),
    "any prefix": Case(150, change=_any_prefix),
    "forgets in days": Case(300, statics=2, span_days=20 * YEAR, change=_at_least(0.3)),
    "forgets in days, both directions": Case(
        300, causal=False, span_days=20 * YEAR, change=_at_least(0.3)
    ),
    "rates of nothing": replace(_PLAIN, change=_times(1e-9)),
    "rates of a second": replace(_PLAIN, change=_times(5e3)),
    "heads side by side": replace(_PLAIN, change=_by_position),
    "one head, one subject": Case(130, subjects=1, heads=1),
}
