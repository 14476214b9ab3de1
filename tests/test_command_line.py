"""A command is a file of a program's ``commands``; only what is typed is imported."""

import os
import signal
import subprocess
import sys
from argparse import ArgumentParser
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from healthfm_core import command_line
from healthfm_core.command_line import Command
from healthfm_core.stdout import say

PAUSE = """
from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_core.errors import RunError

def arguments(parser):
    parser.add_argument("run")

def run(given):
    if given.run == "none":
        raise RunError(722, where="run none", seen="no run", wanted="one", do="See: status")
    say(f"paused {given.run}")
    return 0

COMMAND = Command("pause a run", run, arguments)
"""
LONG_NAME = """
from healthfm_core.command_line import Command
COMMAND = Command("answer 3", lambda given: 3)
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch):
    """A package with a command, one whose import fails, one of two words and a group."""
    name = f"commands_{tmp_path.name.replace('-', '_')}"
    package = tmp_path / name
    (package / "site").mkdir(parents=True)
    for path, text in {
        "__init__.py": "",
        "pause.py": PAUSE,
        "say_three.py": LONG_NAME,
        "slow.py": "raise ImportError('nobody asked for it')",
        "site/__init__.py": "",
        "site/sign.py": PAUSE,
    }.items():
        (package / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module(name)
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        del sys.modules[module]


def typed(commands, *words: str) -> int:
    return command_line.main(commands, program="program", description="It.", argv=words)


def test_a_command_runs_without_the_others_being_imported(commands, capsys):
    assert typed(commands, "pause", "run-1") == 0
    assert capsys.readouterr().out == "paused run-1\n"


def test_a_folder_is_a_group_and_an_underscore_a_hyphen(commands, capsys):
    assert typed(commands, "site", "sign", "north") == 0
    assert capsys.readouterr().out == "paused north\n"
    assert typed(commands, "say-three") == 3


def test_what_a_person_can_put_right_ends_with_its_sentence_and_code(commands, capsys):
    assert typed(commands, "pause", "none") == 8
    assert "HF-722" in capsys.readouterr().err


def test_a_word_that_is_no_command_is_answered_with_those_there_are(commands, capsys):
    slow = Path(commands.__path__[0]) / "slow.py"
    slow.write_text("")  # a module without COMMAND is no command
    with pytest.raises(SystemExit, match="2"):
        typed(commands, "puase")
    assert "(choose from 'pause', 'say-three', 'site')" in capsys.readouterr().err


def test_a_termination_ends_with_143_and_gives_the_signal_back(monkeypatch, commands):
    before = signal.getsignal(signal.SIGTERM)
    paused = import_module(f"{commands.__name__}.pause")
    killed = Command("", lambda given: os.kill(os.getpid(), signal.SIGTERM) or 0)
    monkeypatch.setattr(paused, "COMMAND", killed)
    with pytest.raises(SystemExit, match="143"):
        typed(commands, "pause")
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_module_of_the_coordinators_commands_is_one():
    from healthfm_server import commands

    parser = ArgumentParser()
    command_line.add_commands(parser, commands)
    for words in (["pause", "run-1"], ["site", "list"], ["token", "revoke", "ada"]):
        assert isinstance(parser.parse_args(words).command, Command)


def test_the_coordinators_help_does_not_wait_for_pytorch():
    code = (
        "import sys; from argparse import ArgumentParser; from healthfm_server import commands;"
        "from healthfm_core.command_line import add_commands;"
        "add_commands(ArgumentParser(), commands); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_say_writes_a_line_at_once(capfd):
    say("done")
    assert capfd.readouterr().out == "done\n"


def test_every_program_tells_its_version(capsys):
    for name in ("healthfm_client", "healthfm_server", "healthfm_simulations.tuning"):
        with pytest.raises(SystemExit) as ended:
            import_module(f"{name}.__main__").main(["--version"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.split()[1] == version("healthfm")
    assert import_module("healthfm_simulations.__main__").main(["--version"]) == 0
    assert capsys.readouterr().out == f"healthfm-simulate {version('healthfm')}\n"


def test_a_mistyped_command_gets_the_one_that_was_meant(commands, capsys):
    (Path(commands.__path__[0]) / "slow.py").write_text("")
    for word, hint in (("puase", "; did you mean pause?\n"), ("xyz", "'say-three', 'site')\n")):
        with pytest.raises(SystemExit):
            typed(commands, word)
        assert hint in capsys.readouterr().err


def test_help_as_a_word_is_help(capsys):
    with pytest.raises(SystemExit) as ended:
        import_module("healthfm_client.__main__").main(["help"])
    assert ended.value.code == 0
    assert "ingest" in capsys.readouterr().out


def test_help_into_a_closed_pipe_ends_without_a_traceback():
    command = f"{sys.executable} -m healthfm_simulations -h | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
