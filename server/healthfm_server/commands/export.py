"""``export``: a run's model as a folder of its own."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import SETTINGS


def arguments(parser: ArgumentParser) -> None:
    """Name the run, the model's folder, the round and the licence."""
    takes_study(parser)
    parser.add_argument("run", help="a run folder; in a study also a run's name, or an alias")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--round", type=int, help="the model after this round (default: the last)")
    parser.add_argument(
        "--license",
        metavar="SPDX",
        help="the licence that the study gives the model, for a hub (CC-BY-NC-4.0, ...)",
    )


def run(given: Namespace) -> int:
    """Write the model; PyTorch is imported here, so that ``--help`` need not wait for it."""
    from healthfm_server.registry.model_export import export_model

    folder, round_ = _chosen(given)
    round_ = export_model(folder, given.folder, round_, given.license)
    say(f"the model after round {round_} is in {given.folder}")
    return 0


def _chosen(given: Namespace) -> tuple[Path, int | None]:
    """Return the run's folder, and the round where one is named or promoted."""
    from healthfm_server.registry.model_aliases import ModelAliases

    if Path(given.run).is_dir() or not (given.study / SETTINGS).is_file():
        return Path(given.run), given.round
    study = study_of(given)
    aliases = ModelAliases(study.path, study.runs)
    if given.run in aliases.all() and given.round is None:
        return aliases.folder_of(given.run)
    return RunOrder.find(study.runs, given.run).folder, given.round


COMMAND = Command("write a run's model to a folder, with a model card", run, arguments)
