"""Orders a run as a person asks for it: for the command line and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healthfm_core.config.compose import compose
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import TrustError
from healthfm_core.trust.authority import unknown_site
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder


@dataclass(frozen=True)
class RunWish:
    """What a person asks for.

    Attributes:
        settings: ``group=option`` and ``key=value``; the first may be a file of settings.
        name: The run's; empty: run-1, run-2, ...
        sites: Those it is for, by name; empty: all.
        nodes: How many it waits for; None: all that it is for.
        even_so: Whether it goes on where the sites' codes hardly meet.
        dry_run: Whether the sites are only asked if they would begin.
    """

    settings: tuple[str, ...] = ()
    name: str = ""
    sites: tuple[str, ...] = ()
    nodes: int | None = None
    even_so: bool = False
    dry_run: bool = False


def order_run(study: StudyFolder, wish: RunWish) -> tuple[RunOrder, RunConfig]:
    """Order a run and return it with its configuration.

    Raises:
        ConfigError: A setting cannot be used (HF-101 to HF-104).
        TrustError: A site is not admitted (HF-811, HF-833), or the name cannot be used (HF-810).
        RunError: There is a run of that name (HF-704).
    """
    root, overrides = Path("simulate.yaml"), list(wish.settings)
    if wish.even_so:
        overrides.append("federation.min_shared_codes=0")
    folder: Path | None = None
    if overrides and overrides[0].endswith(".yaml"):
        root = Path(overrides.pop(0))
        folder = root.parent
    _check_sites(study, wish.sites)
    config = compose(overrides, folder, root=root.stem)
    kind = "dry-run" if wish.dry_run else "run"
    name = wish.name or f"{kind}-{1 + len(list(study.runs.glob(f'{kind}-*')))}"

    order = RunOrder.give(
        study.runs,
        name,
        config,
        wish.nodes,
        wish.sites,
        settings=wish.settings,
        dry_run=wish.dry_run,
    )
    return order, config


def ordered_details(order: RunOrder) -> Mapping[str, Any]:
    """Return what the audit log has of an order."""
    about: dict[str, Any] = {"run": order.name}
    if order.sites:
        about["sites"] = list(order.sites)
    return {**about, "dry_run": True} if order.is_dry_run else about


def _check_sites(study: StudyFolder, names: tuple[str, ...]) -> None:
    known = study.sites.sites()
    for name in names:
        if name not in known:
            raise unknown_site(name)
        if known[name].revoked:
            raise TrustError(
                833, where=f"site {name}", seen=f"it was revoked {known[name].revoked}"
            )
