"""``model promote``: give the model of a run an alias."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_run


def arguments(parser: ArgumentParser) -> None:
    """Name the run and the alias."""
    takes_run(parser)
    parser.add_argument("alias", help="production, candidate, or a name of your own")


def run(given: Namespace) -> int:
    """Move the alias, and write so into the audit log."""
    from healthfm_server.registry.noted_aliases import promote_model

    study = study_of(given)
    new, before = promote_model(study, study.audit("command"), given.run, given.alias)
    said = f", no longer {before.run}'s after round {before.round}" if before else ""
    say(f"{given.alias} is the model of {new.run} after round {new.round}{said}")
    return 0


COMMAND = Command("give the model that a run ended with an alias", run, arguments)
