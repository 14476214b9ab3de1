"""What a search leaves: the table of its trials, the best overrides, and a file that holds them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from rich.table import Table

from healthfm_core.config import RunConfig
from healthfm_simulations.tuning.settings_search import (
    FinishedTrial,
    Value,
    best_of,
    text,
    value_at,
)

CHOSEN_FILE: Final = "chosen.yaml"
TRIALS_FILE: Final = "trials.json"


def trials_table(trials: Sequence[FinishedTrial], metric: str) -> Table:
    """Return the trials, the best first, those given up last."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    table = Table(box=None, pad_edge=False)
    for heading in ("trial", metric, "rounds", *keys):
        table.add_column(heading, justify="right", no_wrap=True)
    order = sorted(trials, key=lambda t: (t.score is None, -(t.score or 0.0), t.number))
    for trial in order:
        score = trial.ended if trial.score is None else f"{trial.score:.4f}"
        cells = (text(trial.values[key]) if key in trial.values else "" for key in keys)
        table.add_row(str(trial.number + 1), score, str(trial.rounds), *cells)
    return table


def chosen_overrides(trial: FinishedTrial, config: RunConfig) -> dict[str, Value]:
    """Return the trial's values that differ from the configuration's own."""
    return {k: v for k, v in trial.values.items() if value_at(config, k) != v}


def chosen_command(overrides: Sequence[str], chosen: dict[str, Value]) -> str:
    """Return the command that trains with what was chosen, and scores."""
    known = {f"{key}=" for key in chosen}
    kept = [item for item in overrides if not item.startswith(tuple(known))]
    return shlex.join(["healthfm-simulate", *kept, *(f"{k}={text(v)}" for k, v in chosen.items())])


def write_chosen(
    folder: Path, trials: Sequence[FinishedTrial], config: RunConfig, metric: str, command: str
) -> Path | None:
    """Write the trials as JSON, and the best one's settings as a file of a ``configs/`` group.

    Args:
        folder: Of the search.
        trials: All that have ended.
        config: The configuration that was searched.
        metric: What was raised.
        command: That ran the search.

    Returns:
        The file of settings; None where every trial was given up.
    """
    rows = [trial.__dict__ for trial in trials]
    (folder / TRIALS_FILE).write_text(json.dumps(rows, indent=1, default=dict) + "\n")
    best = best_of(list(trials))
    if best is None:
        return None
    nested: dict[str, Any] = {}
    for key, value in chosen_overrides(best, config).items():
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    head = (
        "# @package _global_\n"
        f"# {command}\n"
        f"# trial {best.number + 1} of {len(trials)}: {metric} {best.score:.4f} on tuning people\n"
    )
    written = folder / CHOSEN_FILE
    written.write_text(head + (yaml.safe_dump(nested, sort_keys=False) if nested else ""))
    return written
