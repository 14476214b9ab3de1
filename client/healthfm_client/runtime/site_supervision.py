"""The site's two processes under their supervisor, and their settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from healthfm_client.site.site_folder import SiteFolder
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.federation.environment import supervised
from healthfm_core.supervision import Program, Supervision

LOOPBACK: Final = "127.0.0.1"


def supervision(site: SiteFolder) -> Supervision:
    """Return the supervisor of a site's processes."""
    base = [sys.executable, "-m", "healthfm_client.runtime.site_process"]
    folder = str(site.path.resolve())
    programs = [Program(name, [*base, name, "--site", folder]) for name in ("node", "worker")]
    return Supervision(site.process, programs, supervised(site.process))


def write_units(site: SiteFolder) -> Iterator[Path]:
    """Write a systemd unit and a Quadlet, and yield where they are."""
    command = ("healthfm-client", "join", "--site", str(site.path.resolve()), "--foreground")
    title = f"HealthFM at the site {site.kit().site}"
    service = supervision(site).service("healthfm-site", title, command)
    stores = tuple(choice.path for choice in site.settings().stores)
    yield from supervision(site).write_units(replace(service, reads=stores))


def node_config(site: SiteFolder) -> dict[str, str | int | float | bool]:
    """Return the site's settings for the app."""
    stores = [
        {"path": str(path), "modalities": choice.modalities and list(choice.modalities)}
        for choice in site.settings().stores
        for path in stores_below(choice.path)
    ]
    config: dict[str, str | int | float | bool] = {
        "site": site.kit().site,
        "stores": json.dumps(stores),
        "home": str(site.path.resolve()),
    }
    return config
