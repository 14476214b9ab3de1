"""A run's model as a folder of its own."""

from __future__ import annotations

from pathlib import Path

from healthfm_core.errors import RunError
from healthfm_core.trained import TrainedModel
from healthfm_server.registry.hub_metadata import INTENDED_USE, front_matter, hub_metadata
from healthfm_server.registry.run_card import run_card
from healthfm_server.run_folder.held_out_file import HeldOutTold
from healthfm_server.run_folder.run_store import RunStore


def export_model(
    run: Path, folder: Path, round_: int | None = None, license_: str | None = None
) -> int:
    """Write the model after `round_` (None: the one it ended with) to `folder`; return that round.

    Its card begins with what a model hub reads: tags, licence, and what sites told of it.

    Raises:
        RunError: There is no such run or round (HF-701), a checkpoint is damaged (HF-703), or
            there is something at `folder` already (HF-704).
    """
    model, store = model_of_run(run, round_), RunStore.open(run)
    told = HeldOutTold.read(run)
    metadata = hub_metadata(
        model.study, folder.name, told if told and told.round == model.round else None, license_
    )
    lines = [*INTENDED_USE.splitlines(), "", *run_card(store, model.study, model.round)]
    model.save(folder, lines, front_matter(metadata))
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
            do="Wait until its first round has ended; a simulation goes on with resume=true",
        )
    return TrainedModel(study, state.parameters, state.round)
