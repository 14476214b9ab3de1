"""``up`` and ``down``: the study's processes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from healthfm_server.commands import Command, study_of, takes_study
from healthfm_server.deploy.study_supervision import supervision, wait_until_up


def _configure_up(parser: ArgumentParser) -> None:
    takes_study(parser)
    parser.add_argument("--foreground", action="store_true", help="for a container or systemd")


def up(arguments: Namespace) -> Iterator[str]:
    """Start the study's processes and say when they answer."""
    study = study_of(arguments)
    if arguments.foreground:
        supervision(study).become()
    supervision(study).start()
    wait_until_up(study)
    yield f"study {study.settings.study} is up at {study.settings.url}; logs in {study.process}"


def down(arguments: Namespace) -> Iterator[str]:
    """Stop the study's processes; runs go on at the round they were in when it is up again."""
    study = study_of(arguments)
    supervision(study).stop()
    yield f"study {study.settings.study} is down"


COMMANDS = (
    Command("up", "start the study's processes under a supervisor", _configure_up, up),
    Command("down", "stop the study's processes", takes_study, down),
)
