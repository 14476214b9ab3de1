"""A run's model as a folder of its own."""

from __future__ import annotations

from pathlib import Path

from healthfm_core.errors import RunError
from healthfm_core.trained import TrainedModel
from healthfm_server.run_folder.run_card import run_card
from healthfm_server.run_folder.run_store import RunStore


def export_model(run: Path, folder: Path, round_: int | None = None) -> int:
    """Write the model after `round_` (None: the one it ended with) to `folder`; return that round.

    Raises:
        RunError: There is no such run or round (HF-701), a checkpoint is damaged (HF-703), or
            there is something at `folder` already (HF-704).
    """
    model = model_of_run(run, round_)
    model.save(folder, list(run_card(RunStore.open(run), model.study, model.round)))
    return model.round


def model_of_run(run: Path, round_: int | None = None) -> TrainedModel:
    """Return the model after `round_` (None: the one that the run ended with).

    Raises:
        RunError: There is no such run or round (HF-701), or a checkpoint is damaged (HF-703).
    """
    store = RunStore.open(run)
    study = store.study()
    state = store.result() if round_ is None else store.checkpoints.load(round_)
    if study is None or state is None:
        raise RunError(
            701,
            where=str(run),
            seen="the run stopped before its first checkpoint",
            wanted="a run that has at least the model it starts from",
            do="Continue the run with resume=true",
        )
    return TrainedModel(study, state.parameters, state.round)
