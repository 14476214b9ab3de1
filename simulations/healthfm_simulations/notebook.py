"""A simulation from Python, as ``healthfm-simulate`` runs it, for notebooks and scripts.

    from healthfm_simulations.notebook import simulate

    result = simulate(["data=stores", "data.stores=[stores/mine,stores/theirs]"])
    result.metrics.to_pandas()

docs/notebooks/a-federation.ipynb shows the rest.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError, RunError
from healthfm_core.owner_only import owner_only
from healthfm_simulations.result_folder import config_to_resume

if TYPE_CHECKING:
    from healthfm_core.evaluation.report.svg_figures import SvgFigure
    from healthfm_core.trained import TrainedModel
    from healthfm_simulations.simulation_run import SimulationResult

Settings = Sequence[str] | str | RunConfig


@dataclass(frozen=True)
class Result:
    """A finished simulation; shown by itself in a notebook as its table of arms.

    Attributes:
        folder: The run's: report.html, config.yaml, checkpoints, and the tables' files.
        config: What was run.
        notes: Plain sentences that the report has too.
        remarks: input subset → arm → what its row leaves out, or why it has none.
    """

    folder: Path
    config: RunConfig = field(repr=False)
    notes: tuple[str, ...] = field(repr=False)
    remarks: Mapping[str, Mapping[str, str]] = field(repr=False)
    _of: SimulationResult = field(repr=False)

    @property
    def report(self) -> Path:
        """The report's page, one file."""
        return self._of.report

    @cached_property
    def metrics(self) -> pa.Table:
        """A row per arm (or difference of two), subset and metric.

        Columns arm, task, subset, metric, value, low and high (95 % interval), n_subjects.
        """
        return pq.read_table(self.folder / "metrics.parquet")

    @cached_property
    def predictions(self) -> pa.Table:
        """A row per held-out person and moment, arm and inputs: what it said, what happened.

        Columns site, subject_id, prediction_time, fold, arm, inputs, target, score, outcome; of
        several seeds the first one's. It is about people.
        """
        from healthfm_simulations.scoring.predictions_file import PREDICTIONS_FILE

        return pq.read_table(self._first / PREDICTIONS_FILE)

    @cached_property
    def figures(self) -> Mapping[str, SvgFigure]:
        """The report's figures by name, such as ``arms``, ``curves`` and ``reliability``."""
        from healthfm_core.evaluation.report.svg_figures import svg_figures

        return svg_figures(self._of.arm_rows, self._of.context)

    def model(
        self, arm: str = "federated", *, fold: str = "fold-0", site: str = ""
    ) -> TrainedModel:
        """Return the model that an arm ended with.

        Args:
            arm: Whose.
            fold: Of the cross-validation.
            site: Of ``local``, which has a model for each.

        Raises:
            RunError: There is no such model (HF-701).
        """
        from healthfm_server.registry.model_export import model_of_run
        from healthfm_simulations.arms.arms_of_fold import RUNS

        runs = self._first / RUNS / fold
        run = runs / arm / site
        if not (run / "config.json").is_file():
            held = sorted(str(one.parent.relative_to(runs)) for one in runs.rglob("config.json"))
            raise RunError(
                701,
                where=str(run),
                seen="there is no run in it",
                wanted=f"one of {', '.join(held)} is wanted" if held else "",
            )
        return model_of_run(run)

    @property
    def _first(self) -> Path:
        several = self.config.simulation.replicates > 1
        return self.folder / f"seed-{self.config.seed}" if several else self.folder

    def __str__(self) -> str:
        """Return the arms' tables as ``healthfm-simulate`` prints them, 100 columns wide."""
        from healthfm_simulations.printed_result import as_text

        return as_text(self._of)

    def _repr_html_(self) -> str:
        from html import escape

        style = "line-height:1.3;overflow-x:auto;white-space:pre"
        return f'<pre style="{style}">{escape(str(self))}</pre>'


def simulate(
    config: Settings = (), *, out: Path | str | None = None, show_progress: bool = True
) -> Result:
    """Train and compare the arms of a study on this machine, as ``healthfm-simulate`` does.

    Args:
        config: Settings as on the command line (``["data=stores", "rounds=3"]``), or a whole
            configuration.
        out: The result folder; None is the configuration's, else ``runs/<time>``.
        show_progress: Whether to say what is done: in a notebook as a bar with the time that is
            left, elsewhere as the command does.

    Raises:
        HealthFMError: Any that the command can end with. An interrupted run is gone on with by
            ``simulate(["out=FOLDER", "resume=true"])``.
    """
    settings = [config] if isinstance(config, str) else config
    run = settings if isinstance(settings, RunConfig) else _composed(settings)
    run.check_horizons()
    run.check_objectives()
    if run.plan.sites is not None:
        raise ConfigError(
            102,
            where="plan.sites",
            seen="a plan",
            wanted="a simulation is",
            do="Run healthfm-simulate with plan=, which makes plans",
        )
    given = () if isinstance(settings, RunConfig) else settings
    from rich.console import Console  # here, and below: PyTorch takes seconds to load

    from healthfm_simulations.notebook_bar import NotebookProgressBar, is_notebook
    from healthfm_simulations.run_bar import RunProgressBar
    from healthfm_simulations.simulation_run import run_simulation

    folder = Path(out or run.out or Path("runs") / time.strftime("%Y-%m-%d-%H%M%S"))
    inside = is_notebook()  # whose kernel claims to be a terminal, with colours
    console = Console(
        highlight=False,
        width=100,
        force_terminal=False if inside else None,
        force_jupyter=False,
        quiet=not show_progress,
    )
    with owner_only():
        done = run_simulation(
            run,
            folder,
            command=shlex.join(["healthfm-simulate", *given]),
            console=console,
            make_bar=NotebookProgressBar if show_progress and inside else RunProgressBar,
        )
    return Result(folder, run, tuple(done.notes), done.remarks, done)


def _composed(settings: Sequence[str]) -> RunConfig:
    return config_to_resume(settings, compose(list(settings)))
