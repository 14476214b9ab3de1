"""``model retire``: take an alias away."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study


def arguments(parser: ArgumentParser) -> None:
    """Name the study and the alias."""
    takes_study(parser)
    parser.add_argument("alias", help="that no model is to have any more")


def run(given: Namespace) -> int:
    """Take the alias away, and write so into the audit log; the model stays where it is."""
    from healthfm_server.registry.noted_aliases import retire_alias

    study = study_of(given)
    model = retire_alias(study, study.audit("command"), given.alias)
    say(f"no model is {given.alias} now; it was that of {model.run} after round {model.round}")
    return 0


COMMAND = Command("take an alias away from its model", run, arguments)
