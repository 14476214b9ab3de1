"""``export``: a run's model as a folder of its own."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.stdout import say


def arguments(parser: ArgumentParser) -> None:
    """Name the run folder, the model's folder and the round."""
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--round", type=int, help="the model after this round (default: the last)")


def run(given: Namespace) -> int:
    """Write the model; PyTorch is imported here, so that ``--help`` need not wait for it."""
    from healthfm_server.run_folder.model_export import export_model

    round_ = export_model(given.run, given.folder, given.round)
    say(f"the model after round {round_} is in {given.folder}")
    return 0


COMMAND = Command("write a run's model to a folder, with a model card", run, arguments)
