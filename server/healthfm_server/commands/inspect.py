"""``inspect``: what a run folder says, as text."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.run_folder.run_description import describe_run


def arguments(parser: ArgumentParser) -> None:
    """Name the run folder."""
    parser.add_argument("run", type=Path, help="the run folder")


def run(given: Namespace) -> int:
    """Print a run's sites, rounds and events."""
    for line in describe_run(given.run):
        say(line)
    return 0


COMMAND = Command(
    "print a run's sites, rounds and what was set aside, with the reasons", run, arguments
)
