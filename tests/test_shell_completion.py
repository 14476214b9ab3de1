"""What the programs print for a shell, completed by a real one at a terminal."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager
from importlib import import_module

import pytest

from healthfm_core.config.compose import ALIASES, GROUPS, options
from healthfm_core.config.setting_words import setting_words
from healthfm_core.shell_completion import SHELLS, completion_script
from healthfm_simulations.__main__ import _completed_words as simulate_parser
from tests.commands_page import programs

PATIENCE_S = 15.0
PROGRAMS = {
    "healthfm-client": "healthfm_client",
    "healthfm-server": "healthfm_server",
    "healthfm-simulate": "healthfm_simulations",
    "healthfm-tune": "healthfm_simulations.tuning",
    "healthfm-experiment": "healthfm_simulations.experiments",
}
LINES = {
    "healthfm-client app": "approve",
    "healthfm-client ingest om": "omop",
    "healthfm-client approve --fu": "further",
    "healthfm-server site si": "sign",
    "healthfm-server run model=ti": "tiny",
    "healthfm-simulate data=eicu": "eicu_demo",
    "healthfm-simulate model=tiny res": "resume=",
    "healthfm-simulate seed=1 resume=t": "true",
    "healthfm-tune --plan network train.lr_fi": "train.lr_final=",
    "healthfm-experiment --ch": "cheap",
}
"""What is typed → the word that the tab key makes of its last."""
START = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
}
SETUP = {
    "bash": "bind 'set enable-bracketed-paste off'\nbind 'set bell-style none'\n",
    "zsh": "unsetopt zle_bracketed_paste beep; autoload -Uz compinit; compinit -u -D\n",
}


def scripts(shell):
    parsers = programs() | {"healthfm-simulate": simulate_parser()}
    assert set(parsers) == set(PROGRAMS)
    return {name: completion_script(parser, shell) for name, parser in parsers.items()}


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, end):
        self._end = end

    def type(self, text, until):
        """Type a text, and wait until something is on the screen."""
        os.write(self._end, text.encode())
        seen, over = "", time.monotonic() + PATIENCE_S
        while until not in seen:
            assert time.monotonic() < over, seen
            if select.select([self._end], [], [], 1.0)[0]:
                seen += os.read(self._end, 65536).decode(errors="replace")
        return seen


@contextmanager
def terminal(shell, folder):
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    ours, its = os.openpty()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "PS1": "$ "}
    with subprocess.Popen(
        [path, *START[shell]],
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(its)
        try:
            yield Terminal(ours)
        finally:
            process.kill()
            process.wait()
            os.close(ours)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_options_files_and_settings(shell, tmp_path):
    (tmp_path / "study-of-hearts").mkdir()
    with terminal(shell, tmp_path) as at:
        for name, script in scripts(shell).items():
            (tmp_path / name).write_text(script)
        sourced = "\n".join(f'eval "$(cat ./{name})"' for name in PROGRAMS)
        (tmp_path / "all").write_text(SETUP[shell] + sourced + "\necho it is re''ady\n")
        at.type(". ./all\n", "it is ready")
        for line, word in LINES.items():
            at.type(f"{line}\t", word)
            at.type("\x15echo o''ver\n", "over")
        at.type("healthfm-server status --study study-o\t", "hearts")


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_prints_it(program, capsys):
    main = import_module(f"{PROGRAMS[program]}.__main__").main
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", "bash"])
    assert ended.value.code == 0
    assert program in capsys.readouterr().out


def test_every_setting_can_be_completed():
    words = setting_words()
    assert {*GROUPS, *ALIASES} <= set(words)
    assert words["data"] == options("data")
    assert words["resume"] == ("true", "false")
    assert "secure" in words["federation"]
    assert "federation.early_stopping" not in words  # a section takes no value
    assert set(words["data.source"]) >= {"cohort", "stores"}
