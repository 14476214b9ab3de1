"""``model compare``: models side by side."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study


def arguments(parser: ArgumentParser) -> None:
    """Name the study and the models."""
    takes_study(parser)
    parser.add_argument("models", nargs="+", help="runs' names, or aliases")


def run(given: Namespace) -> int:
    """Print the comparison."""
    from healthfm_server.registry.model_comparison import comparison_lines
    from healthfm_server.registry.study_models import model_called

    study = study_of(given)
    for line in comparison_lines([model_called(study, name) for name in given.models]):
        say(line)
    return 0


COMMAND = Command("show models side by side: settings that differ, figures", run, arguments)
