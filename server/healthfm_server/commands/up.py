"""``up``: start the study's processes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.study_supervision import (
    refuse_to_start_beside,
    supervision,
    wait_until_up,
)


def arguments(parser: ArgumentParser) -> None:
    """Add ``--foreground``."""
    takes_study(parser)
    parser.add_argument("--foreground", action="store_true", help="for a container or systemd")


def run(given: Namespace) -> int:
    """Start the study's processes and say when they answer."""
    study = study_of(given)
    if closed := study.close_to_others():
        say(f"{closed} files and folders of the study could be read by others: closed")
    refuse_to_start_beside(study)
    if given.foreground:
        supervision(study).become()
    supervision(study).start()
    wait_until_up(study)
    say(f"study {study.settings.study} is up at {study.settings.url}; logs in {study.process}")
    return 0


COMMAND = Command("start the study's processes under a supervisor", run, arguments)
