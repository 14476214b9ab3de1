"""``model list``: the models that the study's runs ended with."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study


def arguments(parser: ArgumentParser) -> None:
    """Name the study."""
    takes_study(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(given: Namespace) -> int:
    """Print a line for each; what reads them is imported here, so that ``--help`` is quick."""
    from healthfm_server.registry.model_comparison import told
    from healthfm_server.registry.study_models import study_models

    models = list(study_models(study_of(given)))
    if given.json:
        say(json.dumps({"models": [model.as_values() for model in models]}, indent=1))
        return 0
    if not models:
        say("No run of this study has a model yet.")
    for model in models:
        alias = f" ({', '.join(model.aliases)})" if model.aliases else ""
        best = next((f"; {r.subset} {r.metric} {told(r)}" for r in model.rows), "")
        say(f"{model.run}{alias}: {model.state}, round {model.model.round}{best}")
    return 0


COMMAND = Command("list the models that runs ended with, and their aliases", run, arguments)
