"""The statistics of several sites in one answer: a regional coordinator passes each on as it is.

Merged there and merged again, sums of real numbers would be others in their last bits.
"""

from __future__ import annotations

from collections.abc import Iterable

from healthfm_core.arrays import ArrayDict
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_server.study_setup.registered_sites import RegisteredSite


def statistics_by_site(site: RegisteredSite, arrays: ArrayDict) -> dict[str, SiteStatistics]:
    """Return name → statistics: of the site itself, or of each that a region speaks for.

    The sites of a region have its name and a number; their own are the region's to know.

    Raises:
        ValueError: There are not as many as the region says, or one cannot be read.
    """
    if not site.sites:
        return {site.name: SiteStatistics.from_arrays(arrays)}
    parts: dict[int, ArrayDict] = {}
    for name, array in arrays.items():
        number, _, rest = name.partition("/")
        parts.setdefault(int(number), {})[rest] = array
    if sorted(parts) != list(range(1, site.sites + 1)):
        raise ValueError("its statistics are not of the sites that it speaks for")
    return {f"{site.name} {n}": SiteStatistics.from_arrays(parts[n]) for n in sorted(parts)}


def side_by_side(statistics: Iterable[SiteStatistics]) -> ArrayDict:
    """Return the arrays in which a region passes its sites' statistics on."""
    return {
        f"{number}/{name}": array
        for number, found in enumerate(statistics, start=1)
        for name, array in found.to_arrays().items()
    }
