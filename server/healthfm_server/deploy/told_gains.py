"""What sites tell of their own models beside a run's: a file per site in the run's folder.

A site sends it when a person there has measured it and decided to tell (``healthfm-client gain
--tell``); nobody asks for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from healthfm_core.errors import RunError, TrustError
from healthfm_core.trust import files
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.run_folder.run_store import RunStore

FOLDER: Final = "own-models"
PATTERNS: Final = ("own_model/*", "gain/*")
MOST_METRICS: Final = 1000
LONGEST_NAME: Final = 200
MOST_BYTES: Final = 256 * 1024


def take_gain(study: StudyFolder, site: str, data: bytes) -> RunOrder:
    """Keep what a site tells of a run that it took part in, and return the run.

    Args:
        study: The study.
        site: Whose certificate the call showed.
        data: JSON: ``study``, the hash of what the run's sites agreed on, and ``metrics``.

    Raises:
        TrustError: It is not what a site sends (HF-831).
        RunError: The site took part in no such run (HF-722).
    """
    try:
        raw = json.loads(data)
        agreed, metrics = str(raw["study"]), dict(_metrics(raw["metrics"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrustError(
            831,
            where=f"site {site}",
            seen=f"what it tells of its own model cannot be read: {error}"[:200],
            wanted="the numbers that healthfm-client gain --tell sends",
        ) from error
    order = _run_of(study, agreed, site)
    files.replace(order.folder / FOLDER / f"{site}.json", json.dumps(metrics).encode())
    return order


def told_gains(folder: Path) -> dict[str, dict[str, float]]:
    """Return site → what it told of its own model, of a run's folder."""
    return {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in sorted((folder / FOLDER).glob("*.json"))
    }


def _run_of(study: StudyFolder, agreed: str, site: str) -> RunOrder:
    for order in RunOrder.all(study.runs):
        if site in _sites_of(order) and _agreed(order) == agreed:
            return order
    raise RunError(
        722,
        where=f"site {site}",
        seen="it tells of a run in which it took no part here",
        wanted="a run of this study",
        do="Name a run of this study: healthfm-client gain RUN --tell",
    )


def _sites_of(order: RunOrder) -> set[str]:
    events = RunStore(order.folder, keep=1).events()
    return {event["site"] for event in events if event["event"] == "prepared"}


def _agreed(order: RunOrder) -> str:
    with suppress(RunError, OSError):
        found = RunStore(order.folder, keep=1).study()
        return "" if found is None else found.hash
    return ""


def _metrics(raw: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if len(raw) > MOST_METRICS:
        raise ValueError(f"{len(raw)} numbers, of {MOST_METRICS} at most")
    for name, value in raw.items():
        is_wanted = any(fnmatchcase(name, pattern) for pattern in PATTERNS)
        if not is_wanted or len(name) > LONGEST_NAME or isinstance(value, bool):
            raise ValueError("a name that is none of a site's own model")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError("a value that is no number")
        yield name, float(value)
