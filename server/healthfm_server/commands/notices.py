"""``notices``: how the coordinator's people are told of what happens, and what they were told."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.notices.try_channels import told_lines, try_channels
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.study_folder import SETTINGS
from healthfm_server.deploy.study_notices import settings_of, told_by


def arguments(parser: ArgumentParser) -> None:
    """Add ``--test``."""
    takes_study(parser)
    parser.add_argument("--test", action="store_true", help="send a notice through every channel")


def run(given: Namespace) -> int:
    """Say it, or try it."""
    study = study_of(given)
    settings = settings_of(study)
    if given.test:
        lines = try_channels(settings, told_by(study), SETTINGS)
    else:
        lines = told_lines(settings, study.path)
    for line in lines:
        say(line)
    return 0


COMMAND = Command("how you are told of what happens, and what you were told", run, arguments)
