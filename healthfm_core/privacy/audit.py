"""What an attack says of a model: how well it recognises members, and the least ε that explains it.

An attacker has one score per person, larger for those it takes to have been trained on. The bound
needs one training run in which every person was in or out by a fair coin of their own (Steinke,
Nasr and Jagielski 2023): under (ε, δ)-differential privacy no rule guesses many of the coins right,
so many right guesses refute small ε. It says what this attack proves, never how much there is: a
bound of 0 is no proof of privacy, a bound above the ε that was promised is proof of a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from healthfm_core.arrays import Bool, Float64

SHARES_GUESSED: Final = (0.05, 0.1, 0.25, 0.5)
"""Shares of the people that are guessed, half in, half out; taking the best is corrected for."""


@dataclass(frozen=True)
class Membership:
    """How well members are distinguished from others.

    Attributes:
        auroc: Chance that a member's score is above another's; 0.5 is chance.
        caught: Share of members found while 5 % of the others are taken for members.
    """

    auroc: float
    caught: float


def membership(scores: Float64, member: Bool) -> Membership:
    """Return how well `scores` tell who was a member."""
    inside, outside = scores[member], scores[~member]
    ranks = stats.rankdata(np.concatenate([inside, outside]))[: len(inside)]
    above = ranks.sum() - len(inside) * (len(inside) + 1) / 2
    threshold = np.quantile(outside, 0.95, method="higher")
    caught = float((inside > threshold).mean())
    return Membership(float(above / (len(inside) * len(outside))), caught)


def likelihood_ratios(loss: Float64, shadow_loss: Float64, shadow_member: Bool) -> Float64:
    """Return each person's log likelihood ratio of having been trained on (LiRA, Carlini 2022).

    With few shadow models a person's two means are their own and the spreads are everybody's.

    Args:
        loss: [N] under the model attacked.
        shadow_loss: [K, N] under models that the attacker trained.
        shadow_member: [K, N] whom each of those was trained on; each person both in and out.
    """
    count_in = shadow_member.sum(0)
    count_out = (~shadow_member).sum(0)
    if (count_in == 0).any() or (count_out == 0).any():
        raise ValueError("every person is in some shadow models and out of others")
    inside = np.where(shadow_member, shadow_loss, 0).sum(0) / count_in
    outside = np.where(shadow_member, 0, shadow_loss).sum(0) / count_out
    around = shadow_loss - np.where(shadow_member, inside, outside)
    spread_in = _spread(around[shadow_member])
    spread_out = _spread(around[~shadow_member])
    log_ratio = stats.norm.logpdf(loss, inside, spread_in) - stats.norm.logpdf(
        loss, outside, spread_out
    )
    return np.asarray(log_ratio, np.float64)


def _spread(around: Float64) -> float:
    return max(float(around.std()), 1e-6)


def epsilon_lower_bound(
    scores: Float64, member: Bool, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest ε that the attack refutes with `confidence`; 0 where it refutes none.

    Args:
        scores: [m] larger for those taken for members.
        member: [m] by a fair coin each.
        delta: δ that was promised.
        confidence: Of all the ways to choose how many are guessed, together.
    """
    order = np.argsort(-scores)
    most = (1 - confidence) / len(SHARES_GUESSED)
    best = 0.0
    for share in SHARES_GUESSED:
        half = max(1, int(len(scores) * share / 2))
        right = int(member[order[:half]].sum() + (~member[order[-half:]]).sum())
        best = max(best, _refuted(len(scores), 2 * half, right, delta, most))
    return best


def _refuted(people: int, guesses: int, right: int, delta: float, most: float) -> float:
    if p_value(people, guesses, right, 0.0, delta) > most:
        return 0.0
    low, high = 0.0, 1.0
    while high < 64 and p_value(people, guesses, right, high, delta) <= most:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        if p_value(people, guesses, right, middle, delta) <= most:
            low = middle
        else:
            high = middle
    return low


def p_value(people: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return the most likely so many guesses or more are right under (ε, δ) (their Theorem 5.2).

    Args:
        people: m, whose membership was drawn.
        guesses: r of them that were guessed.
        right: v guesses that were right.
        epsilon: ε to refute.
        delta: δ.
    """
    law: Any = stats.binom(guesses, 1 / (1 + np.exp(-epsilon)))
    below = np.cumsum(law.pmf(np.arange(right - 1, -1, -1)))
    slack = (below / np.arange(1, right + 1)).max() if right else 0.0
    return min(1.0, float(law.sf(right - 1) + 2 * people * delta * slack))


def codes_told(rows_moved: Float64, held: Bool) -> float:
    """Return how well an update tells which codes a person's record holds: AUROC, 0.5 is chance.

    A table of code vectors gets a gradient where a code occurs and nowhere else, so a plain update
    made from one person is a list of their codes; no optimisation is needed to invert it.

    Args:
        rows_moved: [codes] norm by which the update moves each code's vector.
        held: [codes] whether the record holds it; some do, some don't.
    """
    return membership(rows_moved, held).auroc
