"""The site's two processes under their supervisor, and their settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from healthfm_client.site.site_folder import SiteFolder
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.federation.environment import supervised
from healthfm_core.supervision import Program, Supervision

LOOPBACK: Final = "127.0.0.1"

_CONTAINER: Final = """# podman build -f Containerfile -t healthfm-site .   (beside the wheel)
# podman run -v {folder}:/site:Z -v /path/to/stores:/stores:ro,Z healthfm-site
FROM docker.io/library/python:3.11-slim
COPY *.whl constraints.txt /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints.txt /wheels/*.whl && useradd healthfm
USER healthfm
CMD ["healthfm-client", "join", "--site", "/site", "--foreground"]
"""


def supervision(site: SiteFolder) -> Supervision:
    """Return the supervisor of a site's processes."""
    base = [sys.executable, "-m", "healthfm_client.runtime.site_process"]
    folder = str(site.path.resolve())
    programs = [Program(name, [*base, name, "--site", folder]) for name in ("node", "worker")]
    return Supervision(site.process, programs, supervised(site.process))


def write_units(site: SiteFolder) -> Iterator[Path]:
    """Write a systemd unit and a container file, and yield where they are."""
    container = _CONTAINER.format(folder=site.path.resolve())
    title = f"HealthFM at the site {site.kit().site}"
    yield from supervision(site).write_units("healthfm-site", title, container)


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
