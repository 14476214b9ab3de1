"""``site list``: the sites and the requests that wait."""

from __future__ import annotations

from argparse import Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.study_status import site_line, study_status


def run(given: Namespace) -> int:
    """Print the sites and the requests that wait."""
    study = study_of(given)
    for site in study_status(study)["sites"]:
        say(site_line(site, never=", never connected"))
    for path in sorted((study.path / "requests").glob("*.zip")):
        say(f"request to be signed: {path}")
    return 0


COMMAND = Command("name the sites and the waiting requests", run, takes_study)
