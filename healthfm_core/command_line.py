"""A program's commands: each is a module, and where it stands is what a person types.

``commands/status.py`` is the command ``status`` and ``commands/site/sign.py`` is ``site sign``. The
module's `COMMAND` holds its help, its arguments and what it runs; nothing else has to know of it.
Only what the first word names is imported: some commands need PyTorch, the others need not wait.
"""

from __future__ import annotations

import pkgutil
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from types import FrameType, ModuleType
from typing import Final

from healthfm_core.console import exit_code
from healthfm_core.owner_only import owner_only
from healthfm_core.shell_completion import add_completion

TERMINATED: Final = 143
"""Exit code after SIGTERM."""


def no_arguments(parser: ArgumentParser) -> None:
    """Add no arguments."""


@dataclass(frozen=True)
class Command:
    """What a module of a program's ``commands`` offers, as its `COMMAND`.

    Attributes:
        help: One line for ``--help``.
        run: Does the work and returns the exit code; raises `HealthFMError` for what a person can
            put right.
        arguments: Adds its arguments to its own parser.
    """

    help: str
    run: Callable[[Namespace], int]
    arguments: Callable[[ArgumentParser], None] = no_arguments


def main(
    commands: ModuleType, *, program: str, description: str, argv: Sequence[str] | None = None
) -> int:
    """Run one command and return the exit code; a termination leaves nothing half-written.

    What the command writes is for its owner alone.

    Args:
        commands: The package of the program's commands.
        program: The program's name, for its help.
        description: What it is for, in one line.
        argv: The words after the program's name; None takes this process's own.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    parser = ArgumentParser(prog=program, description=description, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=told_version(program))
    add_completion(parser)
    if words == ["help"]:
        words = ["--help"]
    _suggest(parser, add_commands(parser, commands, words[0] if words else ""), words)
    arguments = parser.parse_args(words)
    command: Command = arguments.command
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with owner_only():
            return exit_code(lambda: command.run(arguments))
    finally:
        signal.signal(signal.SIGTERM, before)


def add_commands(
    parser: ArgumentParser, commands: ModuleType, first_word: str = ""
) -> tuple[str, ...]:
    """Add the command that `first_word` names to `parser`, or all; return what was added.

    Args:
        parser: The program's, or that of a group of commands.
        commands: A package; a package inside it is a group of commands, and its docstring says
            after the colon what they are for.
        first_word: What was typed first.
    """
    modules = {m.name.replace("_", "-"): m for m in pkgutil.iter_modules(commands.__path__)}
    chosen = parser.add_subparsers(metavar="COMMAND", required=True)
    for word in [first_word] if first_word in modules else modules:
        module = import_module(f"{commands.__name__}.{modules[word].name}")
        if modules[word].ispkg:
            help_ = (module.__doc__ or "").partition(": ")[2].strip().removesuffix(".")
            its = chosen.add_parser(word, help=help_, description=f"{help_}.", allow_abbrev=False)
            add_commands(its, module)
        elif isinstance(command := vars(module).get("COMMAND"), Command):
            its = chosen.add_parser(
                word, help=command.help, description=command.help, allow_abbrev=False
            )
            command.arguments(its)
            its.set_defaults(command=command)
    return tuple(chosen.choices)


def told_version(program: str) -> str:
    """Return what ``--version`` prints."""
    return f"{program} {version('healthfm')}"


def _suggest(parser: ArgumentParser, names: Sequence[str], words: Sequence[str]) -> None:
    """End with the command that a mistyped one most resembles, as argparse ends: code 2."""
    if not words or words[0].startswith("-") or words[0] in names:
        return
    near = get_close_matches(words[0], names, n=1)
    choice = ", ".join(map(repr, names))
    hint = f"; did you mean {near[0]}?" if near else ""
    parser.error(f"there is no command {words[0]!r} (choose from {choice}){hint}")


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)
