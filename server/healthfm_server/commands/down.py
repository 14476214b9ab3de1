"""``down``: stop the study's processes."""

from __future__ import annotations

from argparse import Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.study_supervision import supervision


def run(given: Namespace) -> int:
    """Stop the processes; runs continue from the round they were in when it is up again."""
    study = study_of(given)
    supervision(study).stop()
    say(f"study {study.settings.study} is down")
    return 0


COMMAND = Command("stop the study's processes", run, takes_study)
