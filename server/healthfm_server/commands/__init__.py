"""The commands of ``healthfm-server``: one module each, found by its `COMMANDS`.

To add a command, add a module here, or an entry to the `COMMANDS` of one.
"""

from __future__ import annotations

import os
import pkgutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from healthfm_server.deploy.study_folder import StudyFolder


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        name: What is typed; two words make it a subcommand of the first.
        summary: One line for ``--help``.
        configure: Adds its arguments to its own parser.
        lines: Does the work and yields what to print; raises `HealthFMError` for what a person can
            put right.
    """

    name: str
    summary: str
    configure: Callable[[ArgumentParser], None]
    lines: Callable[[Namespace], Iterable[str]]


def commands() -> list[Command]:
    """Return every command, by name."""
    modules = [import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    found = [command for module in modules for command in vars(module).get("COMMANDS", ())]
    return sorted(found, key=lambda command: command.name)


def takes_study(parser: ArgumentParser) -> None:
    """Add ``--study``."""
    parser.add_argument(
        "--study",
        type=Path,
        default=Path(os.environ.get("HEALTHFM_STUDY", ".")),
        help="the study folder (default: $HEALTHFM_STUDY, else this folder)",
    )


def study_of(arguments: Namespace) -> StudyFolder:
    """Open the study that the command line names."""
    return StudyFolder.open(arguments.study)
