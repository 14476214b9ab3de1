"""Weights & Biases, offline: a folder that ``wandb sync`` sends when a person decides to.

Nothing is sent from here. What its client would note of the machine (its name, the account, the
command, packages, processors, the repository) is switched off.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from healthfm_server.tracking.tracked_round import TrackedRound
from healthfm_server.tracking.tracked_run import Ending, TrackedRun
from healthfm_server.tracking.tracker import Tracker

if TYPE_CHECKING:
    import wandb

STEP: Final = "round"


class OfflineRun:
    """One run as W&B's offline folder, made of its whole history; an earlier one is removed.

    Args:
        folder: Where its folders lie.
        run: The run.
        project: Name of the project there.
    """

    def __init__(self, folder: Path, run: TrackedRun, project: str) -> None:
        self._folder, self._run, self._project = folder, run, project
        self._log: wandb.Run | None = None

    def write(self, rounds: Sequence[TrackedRound]) -> None:
        """Log the rounds; the axis is the round, since W&B's own steps only go up."""
        if self._log is None and rounds:
            self._log = self._begun()
        for each in rounds:
            for step, figures in each.steps():
                if self._log is not None and figures:
                    self._log.log({STEP: step, **figures})

    def close(self, ending: Ending) -> None:
        """End W&B's process for this run."""
        if self._log is not None:
            self._log.finish(exit_code=int(ending in ("failed", "stopped")))
            self._log = None

    def _begun(self) -> wandb.Run:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.glob(f"wandb/offline-run-*-{self._run.run_id}"):
            shutil.rmtree(old)
        log = wandb.init(
            project=self._project,
            name=self._run.name,
            id=self._run.run_id,
            dir=self._folder,
            config=self._run.parameters(),
            mode="offline",
            reinit="create_new",
            settings=_silent_settings(),
        )
        log.define_metric(STEP)
        log.define_metric("*", step_metric=STEP)
        return log


def _silent_settings() -> wandb.Settings:
    import wandb

    return wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="coordinator",
        program="healthfm-server",
        save_code=False,
        silent=True,
        username="healthfm",
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _open(run: TrackedRun, experiment: str, at: str | None) -> OfflineRun:
    return OfflineRun(run.below if at is None else Path(at), run, experiment)


TRACKER = Tracker(
    title="Weights & Biases",
    extra="tracking-wandb",
    package="wandb",
    at="the folder for its offline runs, which `wandb sync` sends (default: in the run's)",
    open=_open,
)
