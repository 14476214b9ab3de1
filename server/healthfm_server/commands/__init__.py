"""The commands of ``healthfm-server``: one module each, see `healthfm_core.command_line`."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.stdout import say
from healthfm_server.deploy.run_orders import ACTIONS, RunOrder
from healthfm_server.deploy.study_folder import StudyFolder


def takes_study(parser: ArgumentParser) -> None:
    """Add ``--study``."""
    parser.add_argument(
        "--study",
        type=Path,
        default=Path(os.environ.get("HEALTHFM_STUDY", ".")),
        help="the study folder (default: $HEALTHFM_STUDY, else this folder)",
    )


def takes_run(parser: ArgumentParser) -> None:
    """Add ``--study`` and the name of a run."""
    takes_study(parser)
    parser.add_argument("run", help="the run's name")


def study_of(arguments: Namespace) -> StudyFolder:
    """Open the study that the command line names."""
    return StudyFolder.open(arguments.study)


def run_of(arguments: Namespace) -> RunOrder:
    """Find the run that the command line names."""
    return RunOrder.find(study_of(arguments).runs, arguments.run)


def change_run(arguments: Namespace, action: str, effect: str) -> int:
    """Order ``pause``, ``resume`` or ``stop`` of the named run, and print the effect."""
    study, order = study_of(arguments), run_of(arguments)
    order.want(ACTIONS[action])
    study.audit("command").note(f"run {action}", {"run": order.name})
    say(f"run {order.name}: {effect}")
    return 0
