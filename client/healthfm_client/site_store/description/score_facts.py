"""Polygenic scores, and how they stand against a study's panel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from healthfm_client.site_store.description.event_arrays import EventArrays
from healthfm_client.site_store.description.withholding import counted
from healthfm_core.errors import ConfigError
from healthfm_core.modalities.genomics import PRS_PREFIX


def score_facts(rows: EventArrays, panel: tuple[str, ...] | None, k: int) -> dict[str, Any]:
    """Return how many scores there are, of whom, and which of the panel lack.

    Args:
        rows: The events.
        panel: The study's scores; None is none to hold them against.
        k: The site's threshold; a score fewer people have is not counted.
    """
    held = {
        name.removeprefix(PRS_PREFIX): int(carried)
        for name, carried in zip(rows.names, rows.carried, strict=True)
        if name.startswith(PRS_PREFIX) and carried >= k
    }
    facts: dict[str, Any] = {"scores": len(held)}
    if panel is None:
        return facts | _complete(rows, tuple(held), k)
    there = [name for name in panel if name in held]
    return facts | {
        "panel": len(panel),
        "of_the_panel": len(there),
        "not_here": [name for name in panel if name not in held],
        "not_in_the_panel": len(held) - len(there),
        **_complete(rows, tuple(there), k),
    }


def _complete(rows: EventArrays, names: tuple[str, ...], k: int) -> dict[str, int | None]:
    wanted = {PRS_PREFIX + name for name in names}
    its = rows.named([name in wanted for name in rows.names])
    pairs = np.unique(np.stack([rows.subject[its], rows.code[its]]), axis=1)
    of_each = np.bincount(pairs[0], minlength=rows.people)
    whole = int((of_each == len(names)).sum()) if names else 0
    return {"subjects_with_all": counted(whole, k, of=rows.people)}


def read_panel(path: Path) -> tuple[str, ...]:
    """Return a study's scores: of a model's folder, or of a file that names one a line.

    Raises:
        ConfigError: HF-104, HF-102.
        RunError: HF-707 for a folder that is no model.
    """
    if path.is_dir():
        from healthfm_core.trained import TrainedModel  # not above: it imports PyTorch

        return TrainedModel.load(path).study.vocabulary.panel
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            104,
            where=path.name,
            seen="the panel cannot be read",
            wanted="a model's folder, or a text with a score's name on each line, is wanted",
            do="Check the path",
        ) from error
    names = tuple(dict.fromkeys(line.removeprefix(PRS_PREFIX) for line in lines))
    odd = [name for name in names if not re.fullmatch(r"[\w.-]{1,64}", name)]
    if odd or not names:
        raise ConfigError(
            102,
            where=path.name,
            seen=f"{len(odd)} of {len(names)} lines are no score's name",
            wanted="names such as PGS000018 are wanted, one a line",
        )
    return names
