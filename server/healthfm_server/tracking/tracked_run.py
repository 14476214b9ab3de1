"""A run's folder as a tracker follows it: name, parameters, rounds as they end, how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from healthfm_core.config.renamed import RUN
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import RunError
from healthfm_core.row_reading import RowFollower
from healthfm_server.deploy.run_orders import ORDER, RunOrder
from healthfm_server.run_folder.run_store import CHOICE_FILE, RunStore
from healthfm_server.tracking.run_parameters import run_parameters
from healthfm_server.tracking.tracked_round import TrackedRound, figures_of

HISTORY: Final = "history.jsonl"
CONFIG: Final = "config.json"
RUN_ID: Final = "run-id"
RESULTS: Final = "metrics.json"
"""What a simulation writes last, above the folders of its arms."""

Ending = Literal["running", "finished", "failed", "stopped"]


class TrackedRun:
    """One run: a coordinator's, or one arm of a simulation.

    Args:
        folder: Its own, with a ``config.json``.
        below: The folder that a person named: `folder` or one above it.
        by_site: Whether sites' own figures are read.

    Attributes:
        folder: Its own.
        below: The folder that a person named.
        name: What a tracker shows.
    """

    def __init__(self, folder: Path, below: Path, *, by_site: bool = False) -> None:
        self.folder, self.below = folder, below
        self.name = folder.name if folder == below else _name_below(folder, below)
        self._by_site = by_site
        self._follower = RowFollower(folder / HISTORY)
        self._read: dict[int, tuple[dict[str, float], dict[str, float]]] = {}

    @property
    def run_id(self) -> str:
        """The run's id in contracts and at sites; a resumed run keeps it."""
        return (self.folder / RUN_ID).read_text("utf-8")

    def parameters(self) -> dict[str, str]:
        """Return the run's settings as text; see `run_parameters`."""
        return run_parameters(self._config())

    def _config(self) -> RunConfig:
        raw = json.loads((self.folder / CONFIG).read_text("utf-8"))
        return RunConfig.model_validate(RUN.upgrade(raw))

    def new_rounds(self) -> list[TrackedRound]:
        """Return the rounds that ended since the last look, and those that were done again."""
        rows = [row for line in self._follower.new_lines() if (row := _row(line))]
        if not rows:
            return []
        last_ms = (self.folder / HISTORY).stat().st_mtime * 1000
        took_ms = [1000 * float(row.get("seconds", 0.0)) for row in rows]
        found, left_ms = list[TrackedRound | None](), sum(took_ms)
        for row, took in zip(rows, took_ms, strict=True):
            left_ms -= took
            found.append(self._tracked(row, int(last_ms - left_ms)))
        return [each for each in found if each is not None]

    def _tracked(self, row: dict[str, Any], ended_ms: int) -> TrackedRound | None:
        number, read = int(row["round"]), figures_of(row, by_site=self._by_site)
        before = self._read.get(number)
        self._read[number] = read
        if before == read:
            return None
        return TrackedRound(number, ended_ms, *read, is_again=before is not None)

    def last_scores(self) -> TrackedRound | None:
        """Return what the model after the last round was scored, where a round was chosen.

        Raises:
            RunError: The file of the choice is damaged (HF-703).
        """
        choice = RunStore(self.folder, keep=1).choice()
        last = None if choice is None else choice.scores.get(choice.trained)
        if choice is None or last is None:
            return None
        at = int((self.folder / CHOICE_FILE).stat().st_mtime * 1000)
        chosen = {"chosen_round": float(choice.round)}
        return TrackedRound(choice.trained + 1, at, {}, {choice.monitor: last, **chosen})

    def ending(self) -> Ending:
        """Return how the run ended, or ``running``.

        A study's run has a state; a simulation's arm has ended with its last round, and where a
        round is chosen with the choice.
        """
        if (self.folder / ORDER).is_file():
            state = RunOrder(self.folder).status().state
            return state if state in ("finished", "failed", "stopped") else "running"
        federation = self._config().federation
        store = RunStore(self.folder, keep=1)
        if federation.early_stopping.monitor is not None:
            return "running" if store.choice() is None else "finished"
        newest = next(store.newest_rows(), None)
        is_done = newest is not None and newest["round"] >= federation.rounds
        return "finished" if is_done else "running"


def runs_below(folder: Path, *, by_site: bool = False) -> Iterator[TrackedRun]:
    """Yield the runs in a folder that have begun: the folder itself, or a simulation's arms."""
    if (folder / CONFIG).is_file():
        if (folder / RUN_ID).is_file():
            yield TrackedRun(folder, folder, by_site=by_site)
        return
    for file in sorted(folder.rglob(HISTORY)):
        if (file.parent / CONFIG).is_file() and (file.parent / RUN_ID).is_file():
            yield TrackedRun(file.parent, folder, by_site=by_site)


def may_begin_more(folder: Path) -> bool:
    """Whether arms of a simulation in `folder` may still begin: it has not written its results."""
    return not (folder / CONFIG).is_file() and not (folder / RESULTS).is_file()


def refuse_no_run(folder: Path) -> RunError:
    """Return the error that there is no run in a folder (HF-701)."""
    return RunError(
        701,
        where=str(folder),
        seen=f"there is no {HISTORY} in it or below it",
        wanted="the folder of a run, or a simulation's result folder",
        do="Name the folder; --follow waits for the first round of a run that has begun",
    )


def _name_below(folder: Path, below: Path) -> str:
    return "/".join(part for part in folder.relative_to(below).parts if part != "runs")


def _row(line: bytes) -> dict[str, Any] | None:
    """Return a row; None of a line that a kill cut short, after which the next one is whole."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("round"), int) else None
