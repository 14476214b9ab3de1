"""The commands of ``healthfm-client``: one module each, found by its `COMMAND`.

To add a command, add one module here with a `COMMAND`; nothing else has to know of it.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import TrustError


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        name: What is typed.
        summary: One line for ``--help``.
        configure: Adds its arguments to its own parser.
        run: Does the work and returns the exit code; raises `HealthFMError` for what a person can
            put right.
    """

    name: str
    summary: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


def commands(only: str | None = None) -> list[Command]:
    """Return every command, by name; if there is a module `only`, what is in that one.

    Some import PyTorch, which who wants another command need not wait for.
    """
    names = [m.name for m in pkgutil.iter_modules(__path__)]
    chosen = [only] if only in names else names
    modules = [import_module(f"{__name__}.{name}") for name in chosen]
    found = [m.COMMAND for m in modules if isinstance(vars(m).get("COMMAND"), Command)]
    return sorted(found, key=lambda command: command.name)


def say(text: str) -> None:
    """Write a line to stdout: a command's answer, as against what went wrong."""
    sys.stdout.write(f"{text}\n")


def site_of(arguments: Namespace) -> SiteHome:
    """Return the site of the folder that the command line names.

    Raises:
        TrustError: Nobody enrolled there (HF-830): a mistyped folder is not paused or left.
    """
    home = SiteHome(arguments.site)
    if home.keys.exists():
        return home
    raise TrustError(
        830,
        where=str(arguments.site),
        seen="no site enrolled in this folder",
        wanted="the folder that healthfm-client enroll wrote to",
        do="Name it with --site, or in HEALTHFM_SITE",
    )


def takes_site(parser: ArgumentParser) -> None:
    """Add the option that names the site's folder."""
    parser.add_argument(
        "--site",
        type=Path,
        default=Path(os.environ.get("HEALTHFM_SITE", ".")),
        help="the site's folder (default: $HEALTHFM_SITE, else this folder)",
    )
