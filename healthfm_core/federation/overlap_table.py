"""Sites × what they share with others, as a table: codes by domain, wearable channels, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from healthfm_core.federation.code_overlap import percent
from healthfm_core.federation.input_overlap import InputOverlap
from healthfm_core.tokens.coverage import DEVICES, EVENTS, SHARED

MOST_DOMAINS: Final = 8
"""Columns of domains, at most."""
_CELL: Final = len("100 %")


def overlap_table(
    coverage: Mapping[str, Mapping[str, float]], inputs: InputOverlap | None = None
) -> list[list[str]]:
    """Return a table of sites × domains: what share of a site's events others' codes meet.

    The domains with the most events stand in it; the first column is of all. Where the study does
    not read every wearable device of every site, a column says how many it reads. The last columns
    are how many wearable channels and scores a site has, and how many of these others have too.

    Args:
        coverage: Site → what it answered to the study.
        inputs: What each site has; None is not known.

    Returns:
        The heads, then a line per site, the name first; nothing where no site said.
    """
    held = inputs.heads() if inputs is not None else []
    told = {
        site: found
        for site, found in sorted(coverage.items())
        if held or {SHARED, DEVICES} & {*found}
    }
    if not told:
        return []
    with_devices = [DEVICES] * any(DEVICES in found for found in told.values())
    domains = sorted(
        {name.partition("/")[2] for found in told.values() for name in found if "/" in name},
        key=lambda domain: (-sum(f.get(f"{EVENTS}/{domain}", 0.0) for f in told.values()), domain),
    )[:MOST_DOMAINS]
    heads = ["all codes", *(["devices read"] if with_devices else []), *domains, *held]
    shown = [SHARED, *with_devices, *(f"{SHARED}/{domain}" for domain in domains)]
    return [
        ["site", *heads],
        *(
            [
                site,
                *(percent(found.get(name)) for name in shown),
                *(inputs.cells(site) if inputs is not None else []),
            ]
            for site, found in told.items()
        ),
    ]


def overlap_lines(
    coverage: Mapping[str, Mapping[str, float]], inputs: InputOverlap | None = None
) -> Iterator[str]:
    """Yield the `overlap_table` as lines of text."""
    table = overlap_table(coverage, inputs)
    columns = list(zip(*table, strict=True))
    widths = [max(_CELL, *map(len, cells)) for cells in columns[1:]]
    first = max(map(len, columns[0]), default=0) if columns else 0
    for name, *cells in table:
        right = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        yield "  ".join([name.ljust(first), *right])
