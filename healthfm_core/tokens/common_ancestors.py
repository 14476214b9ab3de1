"""Which codes of a study roll up to an ancestor that enough sites know.

One hospital writes ICD-10-CM E11.65 where the next writes E11.9: both are common at home, and
neither learns from the other. With `tokens.common_share` such codes become what is above them, E11.
What decides is the sum of the sites' round 0 alone: how many let out a code, and how many have one
at or below another (`SiteStatistics.lineage`), so that sums that hide the sites decide alike.

The tree is cut from its leaves. At each ancestor the codes below it that too few sites know are
pooled, and roll up where enough sites know the pool; else they climb on, together with others.
What nothing above makes common stays what it is. (docs/decisions/0062-common-ancestors.md)
"""

from __future__ import annotations

import math
from collections import ChainMap, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final

import numpy as np

from healthfm_core.arrays import Int64
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.tokens import values
from healthfm_core.tokens.lineage import MOST_LEVELS, TOP
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.values import Sketch

FEWEST: Final = 2
"""Sites that an ancestor is known by at least: of one site's codes nothing is shared."""


def roll_ups(merged: SiteStatistics, config: TokensConfig) -> dict[str, str]:
    """Return code → the ancestor it becomes, for the codes that roll up.

    The share that `config.common_share` asks for is of the sites that know the best known code.

    Args:
        merged: The sum of the sites' statistics.
        config: The study's.
    """
    if not config.common_share or not merged.lineage:
        return {}
    tree = _Tree(merged)
    enough = max(FEWEST, math.ceil(config.common_share * tree.most - 1e-9))
    rolled: dict[str, str] = {}
    settled = {code for code, sites in tree.codes.items() if sites >= enough}
    for node in tree.from_the_leaves():
        pool = [code for code in tree.below[node] if code not in settled]
        further = {code: node for code in pool if code != node}
        if further and tree.known_by(node, ChainMap(further, rolled)) >= enough:
            settled.update(pool)
            rolled.update(further)
    return rolled


class _Tree:
    """The codes that may roll up, what is above them, and how many sites know each.

    Attributes:
        codes: Code that is let out without values → sites that let it out.
        below: Ancestor, or code → the codes at or below it.
        most: Sites of the best known code.
    """

    def __init__(self, merged: SiteStatistics) -> None:
        numeric = {merged.codes[i] for i in np.unique(merged.sketch.code).tolist()}
        named = {code for code, _ in merged.lineage} - numeric
        self._parent = _parents(merged, numeric)
        self._present: dict[str, int] = defaultdict(int)
        for (code, _), sites in zip(merged.lineage, merged.lineage_sites.tolist(), strict=True):
            self._present[code] += sites
        known = dict(zip(merged.codes, merged.sites.tolist(), strict=True))
        self.codes = {code: known[code] for code in sorted(named & known.keys())}
        self.most = max([*known.values(), *self._present.values()], default=0)
        self.below: dict[str, list[str]] = defaultdict(list)
        for code in self.codes:
            for above in self._near(code):
                self.below[above].append(code)

    def from_the_leaves(self) -> list[str]:
        """Return codes and ancestors, those with most above them first, then by name."""
        depth = {node: sum(1 for _ in _upwards(node, self._parent)) for node in self.below}
        return sorted(self.below, key=lambda node: (-depth[node], node))

    def known_by(self, node: str, rolled: Mapping[str, str]) -> int:
        """Return how many sites know one of the codes that are, or become, `node`.

        Exact where nothing else is below it. Else the number to be expected if sites chose their
        codes apart from each other, at least what is certain.

        Args:
            node: A code or an ancestor.
            rolled: Code → the ancestor it becomes.
        """
        tokens = {code: rolled.get(code, code) for code in self.below[node]}
        each = [self.codes[code] for code, token in tokens.items() if token == node]
        present = max([self._present[node], *each])
        others = sorted({*tokens.values()} - {node})
        certain = present - sum(self.known_by(token, rolled) for token in others)
        expected = present * (1 - math.prod(1 - sites / present for sites in each))
        return min(present, sum(each), max([certain, *each, math.floor(expected + 0.5)]))

    def _near(self, code: str) -> Iterator[str]:
        """Yield a code and what it may become."""
        return islice(_upwards(code, self._parent), MOST_LEVELS + 1)


def _parents(merged: SiteStatistics, numeric: set[str]) -> dict[str, str]:
    """Return each code's parent: of several that sites say, what most of them do, then by name.

    None is below itself: what would close a circle is not believed.
    """
    said = sorted(
        zip(merged.lineage, merged.lineage_sites.tolist(), strict=True),
        key=lambda item: (item[0][0], -item[1], item[0][1]),
    )
    parents: dict[str, str] = {}
    for (code, parent), _ in said:
        usable = parent != TOP and parent not in numeric and code not in parents
        if usable and code not in _upwards(parent, parents):
            parents[code] = parent
    return parents


def _upwards(code: str, parents: Mapping[str, str]) -> Iterator[str]:
    """Yield a code and all above it."""
    yield code
    while (code := parents.get(code, TOP)) != TOP:
        yield code


def rolled_up(merged: SiteStatistics, become: Mapping[str, str]) -> SiteStatistics:
    """Return the statistics with some codes counted as others.

    Counts of people and visits are sums, of an ancestor as of its codes: who has two of them counts
    twice, since sites tell nothing of that, but never more than there are. `reached` is the share
    of that sum that the sites of the ancestor are of the sites of its codes.

    Args:
        merged: The sum of the sites' statistics.
        become: Code → the ancestor that stands for it (`roll_ups`).
    """
    if not become:
        return merged
    tree = _Tree(merged)
    token = [become.get(code, code) for code in merged.codes]
    codes = tuple(sorted({*token}))
    index = {code: i for i, code in enumerate(codes)}
    at = np.array([index[code] for code in token], np.int64)

    def total(counts: Int64) -> Int64:
        return np.bincount(at, counts, len(codes)).astype(np.int64)

    of_all = total(merged.sites)
    sites = of_all.copy()
    for code in {*become.values()} & index.keys():
        sites[index[code]] = tree.known_by(code, become)
    reached = np.ceil(total(merged.reached) * sites / np.maximum(of_all, 1)).astype(np.int64)
    visits = total(merged.visits)
    sketch = merged.sketch
    return replace(
        merged,
        codes=codes,
        subjects=np.minimum(total(merged.subjects), reached),
        timed_subjects=np.minimum(total(merged.timed_subjects), reached),
        visits=np.where(of_all == sites, visits, np.minimum(visits, merged.all_visits.sum())),
        reached=reached,
        sites=sites,
        sketch=values.add([Sketch(at[sketch.code].astype(np.int32), sketch.bucket, sketch.count)]),
    )
