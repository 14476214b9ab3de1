"""Who masks with whom: a ring of sites in an order nobody can choose, each tied to its neighbours.

Masking with all others costs a site n - 1 masks. Bell, Bonawitz, Gascón, Lepoint and Raykova
("Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020) show that k random
neighbours are enough. Their graph is a Harary graph over a random order: each site is tied to the
k/2 before and the k/2 after it. The order is a hash of all keys of the session, which no one knows
before the last site has sent its own; each site works it out for itself.

`choose_degree` asks three things of k, after Theorem 3.10 there, each as a union bound over sites:

1. The graph of honest sites that stayed is connected: it is unless k/2 sites in a row are all
   corrupt or gone, n·(γ+δ)^(k/2) ≤ 2^-σ.
2. No site has as many corrupt neighbours as open a secret (hypergeometric tail), ≤ 2^-σ.
3. Every site keeps as many neighbours as opening needs (hypergeometric tail), ≤ 2^-η.

Where no k under n - 1 will do, every site masks with every other, and 1 to 3 hold without luck as
long as the threshold is met.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

from scipy.stats import hypergeom


def holders_needed(holders: int, threshold: float) -> int:
    """Return how many of `holders` of a secret's shares open it: over half, at least 2."""
    wanted = math.ceil(threshold * holders - 1e-9)
    return min(holders, max(2, holders // 2 + 1, wanted))


@lru_cache(maxsize=256)
def choose_degree(
    sites: int,
    threshold: float,
    *,
    colluding_fraction: float,
    dropout_fraction: float,
    security_bits: int = 40,
    failure_bits: int = 30,
) -> int:
    """Return the fewest neighbours k, even, that are enough; `sites` - 1 where none are.

    Args:
        sites: n, those that sent keys.
        threshold: Share of a secret's holders that open it.
        colluding_fraction: γ, share of sites that may tell the coordinator what they know.
        dropout_fraction: δ, share of sites that may leave in the round.
        security_bits: σ: what must stay secret fails with probability 2^-σ at most.
        failure_bits: η: a round with at most δ·n dropouts cannot be opened, likewise.
    """
    gone, bad = math.ceil(dropout_fraction * sites), math.ceil(colluding_fraction * sites)
    for degree in range(2, sites - 1, 2):
        needed = holders_needed(degree + 1, threshold)
        cut = sites * min(1.0, (gone + bad) / sites) ** (degree // 2)
        exposed = sites * hypergeom.sf(needed - 1, sites - 1, min(bad, sites - 1), degree)
        lost = sites * hypergeom.sf(degree - needed, sites - 1, min(gone, sites - 1), degree)
        if max(cut, exposed) <= 2.0**-security_bits and lost <= 2.0**-failure_bits:
            return degree
    return max(1, sites - 1)


def neighbours(names: Sequence[str], degree: int, seed: bytes) -> dict[str, tuple[str, ...]]:
    """Return each site's neighbours, sorted: symmetric, `degree` of them, the same for everyone.

    Args:
        names: The sites.
        degree: Rounded up to an even number; `len(names)` - 1 or more ties all to all.
        seed: Hash of what no single site could choose.
    """
    ring = sorted(names, key=lambda name: hashlib.sha256(seed + name.encode()).digest())
    n, half = len(ring), (degree + 1) // 2
    if 2 * half >= n - 1:
        return {name: tuple(sorted(set(ring) - {name})) for name in ring}
    steps = [step for step in range(-half, half + 1) if step]
    return {ring[i]: tuple(sorted(ring[(i + step) % n] for step in steps)) for i in range(n)}
