"""The same metrics site by site: who gains by taking part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from healthfm_core.config import RunConfig
from healthfm_core.evaluation import MetricRow, Predictions, metric_rows
from healthfm_core.evaluation.metrics.metric_rows import MINUS
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.scoring.arm_metrics import ORACLES
from healthfm_simulations.sites import SimulatedSite

BY_SITE_FILE: Final = "by_site.json"
METRICS: Final = ("average_precision", "auroc")


@dataclass(frozen=True)
class SiteRows:
    """What one site's own test people say of every arm.

    Attributes:
        site: The site's name.
        modalities: What it used, sorted.
        people: How many it trained on.
        rows: Rows of the arms and of their paired differences.
    """

    site: str
    modalities: tuple[str, ...]
    people: int
    rows: tuple[MetricRow, ...]


def rows_by_site(
    predictions: Mapping[str, Predictions], sites: Sequence[SimulatedSite], config: RunConfig
) -> list[SiteRows]:
    """Return the arms' rows at each site that has enough test people to be reported.

    Args:
        predictions: Arm → predictions for all sites.
        sites: The sites, in the order of their index.
        config: Task, bootstraps and the threshold ``evaluation.k_subgroup``.
    """
    sites_reported = []
    for index, site in enumerate(sites):
        here = {arm: p.where(p.site == index) for arm, p in predictions.items()}
        here = {arm: part for arm, part in here.items() if len(part)}
        rows = _rows(here, config, site.name) if here else ()
        if rows:
            store = site.view()
            people = len(store.subjects("train"))
            sites_reported.append(
                SiteRows(site.name, tuple(sorted(store.modalities)), people, rows)
            )
    return sites_reported


def _rows(here: Mapping[str, Predictions], config: RunConfig, site: str) -> tuple[MetricRow, ...]:
    """Return the rows of subsets with at least ``k_subgroup`` people; none for a small site."""
    least = config.evaluation.k_subgroup
    if min(part.n_subjects for part in here.values()) < least:
        return ()
    rows = metric_rows(
        here,
        task=config.evaluation.task,
        bootstraps=config.evaluation.bootstraps,
        rng=numpy_generator(config.seed, "bootstrap", site),
        metrics=METRICS,
    )
    oracles = tuple(f"{MINUS}{name}" for name in ORACLES)
    reported = (row for row in rows if not row.arm.endswith(oracles))
    return tuple(row for row in reported if row.n_subjects >= least)


def write_by_site(folder: Path, sites_reported: Sequence[SiteRows]) -> None:
    """Write ``by_site.json``; an undefined number is null."""
    plain = [asdict(one) for one in sites_reported]
    for one in plain:
        for row in one["rows"]:
            row |= {k: None for k in ("value", "low", "high") if not np.isfinite(row[k])}
    (folder / BY_SITE_FILE).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def read_by_site(folder: Path) -> list[SiteRows]:
    """Read what `write_by_site` wrote."""
    plain = json.loads((folder / BY_SITE_FILE).read_text(encoding="utf-8"))
    return [
        SiteRows(
            one["site"],
            tuple(one["modalities"]),
            one["people"],
            tuple(MetricRow(**{**row, **_numbers(row)}) for row in one["rows"]),
        )
        for one in plain
    ]


def _numbers(row: Mapping[str, float | None]) -> dict[str, float]:
    values = {key: row[key] for key in ("value", "low", "high")}
    return {key: float("nan") if value is None else value for key, value in values.items()}
