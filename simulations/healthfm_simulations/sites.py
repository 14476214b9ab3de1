"""From a configuration to site stores on disk: simulated, or read from real data."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from healthfm_client.ingest import ingest
from healthfm_core.config import RunConfig
from healthfm_core.config.data import Modality
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_simulations.cohort import generate, write_sites
from healthfm_simulations.partition import early_store

MARKER: Final = "sites.json"
"""Written last into the folder of stores: which stores a run uses, in order."""

EARLY: Final = "early"
"""Folder of the stores' early parts."""

REAL_DATA: Final = Path("..") / "shared" / "data"
"""Where the real sets are looked for when ``data.path`` is not given, from the working folder."""

FOLDERS: Final = {
    "physionet2012": "physionet2012",
    "eicu_demo": "eicu_demo",
    "nhanes": "nhanes_2003_2006",
}


@dataclass(frozen=True)
class SimulatedSite:
    """One site of a simulation.

    Attributes:
        name: The site's name.
        path: Its store.
        modalities: Those it may use in training; None is all it holds.
        early: Its store without the late part of each record, where that is held out.
    """

    name: str
    path: Path
    modalities: tuple[Modality, ...] | None
    early: Path | None = None

    def view(self) -> SiteStore:
        """Open the store as the site itself sees it."""
        return SiteStore.open(self.path, modalities=self.modalities)


def prepare_sites(config: RunConfig, folder: Path) -> tuple[SimulatedSite, ...]:
    """Return the run's sites, made in `folder` unless an earlier start of this run made them.

    Raises:
        ConfigError: HF-102 or HF-103 where the configuration names stores or sites that are not.
        IngestError: HF-3xx from the readers.
        StoreError: HF-2xx from the stores.
    """
    marker = folder / MARKER
    if config.data.source == "stores":
        paths = _given_stores(config)
    elif marker.is_file():
        paths = [folder / name for name in json.loads(marker.read_text(encoding="utf-8"))]
    else:
        paths = _make_stores(config, folder)
        marker.write_text(json.dumps([path.name for path in paths]) + "\n", encoding="utf-8")
    sites = [_site(config, path, index, len(paths)) for index, path in enumerate(paths)]
    if config.evaluation.protocol == "late":
        sites = [_with_early(site, folder / EARLY, config.evaluation.late_days) for site in sites]
    _refuse_unknown_names(config, [site.name for site in sites])
    return tuple(sites)


def _site(config: RunConfig, path: Path, index: int, count: int) -> SimulatedSite:
    name = SiteStore.open(path).name
    allowed = config.data.modalities.get(name)
    if allowed is None and config.data.cycle_modalities:
        sets = config.data.cycle_modalities
        allowed = sets[index * len(sets) // count]
    return SimulatedSite(name, path, allowed)


def _with_early(site: SimulatedSite, folder: Path, late_days: float) -> SimulatedSite:
    early = folder / site.name  # a store is written whole or not at all
    if not early.exists():
        early_store(site.path, early, late_days)
    return replace(site, early=early)


def _make_stores(config: RunConfig, folder: Path) -> list[Path]:
    source = config.data.source
    if config.sites != "natural" and source != "eicu_demo":
        raise ConfigError(
            103,
            where="sites",
            seen=f"sites={config.sites} with data={source}",
            wanted="only eicu_demo can group its sites (region, hospital, groups)",
            do="Leave sites out",
        )
    if source == "cohort":
        folder.mkdir(parents=True, exist_ok=True)
        return write_sites(generate(config.data.cohort, config.seed), folder)
    path = Path(config.data.path) if config.data.path else REAL_DATA / FOLDERS[source]
    options: dict[str, Any] = {}
    if source == "eicu_demo":
        options["sites"] = config.sites
    if source == "nhanes":
        options["wear_minutes"] = config.tokens.device == "wear_minute"
    return ingest(source, path, folder, overwrite=True, **options)


def _given_stores(config: RunConfig) -> list[Path]:
    if not config.data.stores:
        raise ConfigError(
            103,
            where="data.stores",
            seen="no store is named",
            wanted="data=stores trains on site stores that exist",
            do="Give data.stores=[path,path]",
        )
    return [Path(path) for path in config.data.stores]


def _refuse_unknown_names(config: RunConfig, names: Sequence[str]) -> None:
    named: dict[str, Collection[str]] = {
        "data.modalities": config.data.modalities,
        "simulation.joins": config.simulation.joins,
        "simulation.leaves": config.simulation.leaves,
    }
    for key, given in named.items():
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ConfigError(
                102,
                where=key,
                seen=f"no site is called {unknown[0]}",
                wanted=f"the sites are {', '.join(names[:12])}",
            )
