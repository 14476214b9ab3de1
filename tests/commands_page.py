"""Makes docs/commands.md from the commands: python -m tests.commands_page > docs/commands.md."""

from __future__ import annotations

import argparse
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence

from healthfm_client import commands as client_commands
from healthfm_core.command_line import add_commands
from healthfm_server import commands as server_commands
from healthfm_simulations.experiments.__main__ import _parser as experiment_parser
from healthfm_simulations.tuning.__main__ import _parser as tune_parser

HEAD = """# Commands

Made from the commands by `python -m tests.commands_page > docs/commands.md`; a test fails when the
two differ. `--help` says the same of one, in the terminal. Every command ends with 0, or with one
sentence and [its exit code](exit-codes.md).

`healthfm-simulate` takes no options, only [settings](settings.md) as `key=value` and
`group=option`.
"""
Entry = tuple[str, str]
"""How an argument is written, and what it means."""


def programs() -> dict[str, ArgumentParser]:
    """Return each program's parser, with all of its commands."""
    packages = {"healthfm-client": client_commands, "healthfm-server": server_commands}
    parsers = {"healthfm-tune": tune_parser(), "healthfm-experiment": experiment_parser()}
    for name, package in packages.items():
        parsers[name] = ArgumentParser(prog=name)
        add_commands(parsers[name], package)
    return dict(sorted(parsers.items()))


def page() -> str:
    """Return docs/commands.md."""
    return HEAD + "".join(_section(parser, 2) for parser in programs().values())


def children(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    """Return a parser's commands by the word that names each."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _section(parser: ArgumentParser, level: int, known: Sequence[Entry] = ()) -> str:
    below = children(parser)
    shared = _shared(below.values())
    name = parser.prog if level == 2 else f"`{parser.prog}`"
    said = [f"\n{'#' * min(level, 4)} {name}\n"]
    if parser.description:
        said.append(f"\n{_plain(parser.description % {'prog': parser.prog})}\n")
    said.append(_table([entry for entry in _entries(parser) if entry not in known]))
    if shared:
        said.append(f"\nEach of its {len(below)} takes:\n{_table(shared)}")
    said.extend(_section(one, level + 1, shared) for one in below.values())
    return "".join(said)


def _shared(parsers: Iterable[ArgumentParser]) -> list[Entry]:
    every = [_entries(parser) for parser in parsers]
    if len(every) < 2:
        return []
    return [entry for entry in every[0] if all(entry in one for one in every)]


def _entries(parser: ArgumentParser) -> list[Entry]:
    kinds = (argparse._SubParsersAction, argparse._HelpAction, argparse._VersionAction)
    return [
        (_written(action), _plain((action.help or "") % {**vars(action), "prog": parser.prog}))
        for action in parser._actions
        if not isinstance(action, kinds) and action.help != argparse.SUPPRESS
    ]


def _written(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        choices = "{" + ",".join(map(str, action.choices or ())) + "}"
        metavar = action.metavar or (choices if action.choices else None)
        value = str(metavar or (action.dest.upper() if action.option_strings else action.dest))
        value += {"*": " ...", "+": " ..."}.get(str(action.nargs), "")
    return f"{', '.join(action.option_strings)} {value}".strip()


def _table(entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    rows = [
        f"| `{written.replace('|', chr(92) + '|')}` | {means} |\n" for written, means in entries
    ]
    return "\n| argument | meaning |\n|---|---|\n" + "".join(rows)


def _plain(text: str) -> str:
    """Return help as Markdown that shows what stands there."""
    for mark in ("|", "<", "*", "_"):
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


if __name__ == "__main__":
    sys.stdout.write(page())
