"""What completes a program's words in a shell: made from its parser, so that the two never differ.

shtab writes a script of the shell's own; no Python starts at a press of the tab key.
"""

from __future__ import annotations

import re
import shlex
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from healthfm_core.stdout import say

SHELLS: Final = ("bash", "zsh")
Settings = Callable[[], Mapping[str, Sequence[str]]]
"""Returns what can stand before a ``=``, with what can stand behind it; none: anything."""

_SETTINGS: Final = "healthfm_settings"
_BASH: Final = """\
_healthfm_settings() {{
  local at=$COMP_CWORD key= values=
  if [[ ${{COMP_WORDS[at]}} == *=* && ${{COMP_WORDS[at]}} != = ]]; then return; fi
  if [[ ${{COMP_WORDS[at]}} == = ]]; then key=${{COMP_WORDS[at-1]}}; set -- ""
  elif (( at > 1 )) && [[ ${{COMP_WORDS[at-1]}} == = ]]; then key=${{COMP_WORDS[at-2]}}; fi
  case $key in
    "") compgen -W {keys} -- "$1"; return;;
{values}
  esac
  compgen -W "$values" -- "$1"
}}
"""
_ZSH: Final = """\
_healthfm_settings() {{
  local -a found
  if compset -P '*='; then
    case ${{IPREFIX%=}} in
{values}
    esac
    compadd -a found
  else
    found=({keys})
    compadd -S '' -a found
  fi
}}
"""
_WITHOUT_SPACE: Final = """
{name}_without_space() {{
  {name} "$@"
  if [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]]; then
    compopt -o nospace +o filenames
  fi
}}
complete -o filenames -F {name}_without_space {program}
"""


def add_completion(parser: ArgumentParser) -> None:
    """Add the option that prints what completes the program's words."""
    parser.add_argument(
        "--print-completion",
        action=_Print,
        choices=SHELLS,
        help="print what completes this program's words in that shell, and end",
    )


def takes_settings(action: Action, settings: Settings) -> None:
    """Have an argument completed as settings, ``group=option`` and ``key=value``."""
    vars(action)["settings"] = settings


def completion_script(parser: ArgumentParser, shell: str) -> str:
    """Return the script, for a shell to read.

    Args:
        parser: The program's, with all its commands.
        shell: One of `SHELLS`.
    """
    import shtab  # here: no other use of a program needs it

    settings: Settings | None = None
    for action in _actions(parser):
        if action.type is Path:
            vars(action)["complete"] = shtab.FILE
        found: Settings | None = vars(action).get("settings")
        if found is not None:
            settings = found
            vars(action)["complete"] = dict.fromkeys(SHELLS, f"_{_SETTINGS}")
    words = settings() if settings is not None else {}
    preamble = _preamble(shell, words) if words else ""
    script: str = shtab.complete(parser, shell, preamble=preamble)
    if shell == "zsh":  # shtab 1.13 has the first of several words completed alone
        script = re.sub(r'"\(\*\)::?', '"*:', script).replace("more='(*)'", "more='*:'")
    if words and shell == "bash":
        name = f"_shtab_{parser.prog.replace('-', '_')}"
        script += _WITHOUT_SPACE.format(name=name, program=parser.prog)
    return script


class _Print(Action):
    """Prints the script and ends."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None
    ) -> None:
        say(completion_script(parser, values))
        parser.exit()


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """Yield the arguments of a program and of all its commands."""
    for action in parser._actions:
        yield action
        choices = action.choices if isinstance(action.choices, dict) else {}
        for below in choices.values():
            if isinstance(below, ArgumentParser):
                yield from _actions(below)


def _preamble(shell: str, words: Mapping[str, Sequence[str]]) -> str:
    keys = " ".join(f"{key}=" for key in words)
    cases = {key: " ".join(values) for key, values in words.items() if values}
    if shell == "bash":
        values = "\n".join(f"    {key}) values={shlex.quote(of)};;" for key, of in cases.items())
        return _BASH.format(keys=shlex.quote(keys), values=values)
    values = "\n".join(f"      {key}) found=({of});;" for key, of in cases.items())
    return _ZSH.format(keys=" ".join(shlex.quote(key) for key in keys.split()), values=values)
