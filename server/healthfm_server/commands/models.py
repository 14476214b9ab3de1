"""``inspect`` and ``export``: what a run folder tells, and its model."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from healthfm_server.commands import Command
from healthfm_server.run_folder.run_description import describe_run


def _inspect(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the run folder")


def _export(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--round", type=int, help="the model after this round (default: the last)")


def export(given: Namespace) -> Iterator[str]:
    """Write a model; PyTorch is imported for this command alone."""
    from healthfm_server.run_folder.model_export import export_model

    yield from export_model(given.run, given.folder, given.round)


COMMANDS = (
    Command(
        "inspect",
        "print a run's sites, rounds and what was set aside, with the reasons",
        _inspect,
        lambda given: describe_run(given.run),
    ),
    Command(
        "export",
        "write a run's model to a folder, with a model card",
        _export,
        export,
    ),
)
