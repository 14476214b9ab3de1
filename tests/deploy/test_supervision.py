"""The real supervisor: what is killed is started again, and what is stopped is gone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from healthfm_core.errors import RunError
from healthfm_core.supervision import Program, Supervision, socket_of
from healthfm_server.deploy import executor
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings

SLEEPER = (
    "import os, sys, signal;print(sys.argv[1:], os.environ['MARK'], flush=True); signal.pause()"
)
CHILD = (
    "from healthfm_core.supervision import die_with_supervisor; import pathlib, signal, sys;"
    "die_with_supervisor(pathlib.Path(sys.argv[1])); print('up', flush=True); signal.pause()"
)


def eventually(condition, patience_s=600.0):
    until = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return value


def process_of(supervision, name, other_than=None):
    state = supervision.states().get(name, "")
    number = int(state.split()[2].rstrip(",")) if state.startswith("RUNNING") else None
    return None if number == other_than else number


def lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def supervision(tmp_path):
    folder = tmp_path / "a folder with 100 % of it"
    supervised = Supervision(
        folder,
        [
            Program("sleeper", [sys.executable, "-c", SLEEPER, "two words", "50%"]),
            Program("child", [sys.executable, "-c", CHILD, str(folder)]),
        ],
        {"MARK": "100%"},
    )
    yield supervised
    supervised.stop()


def test_a_process_slow_to_start_ends_where_another_supervisor_has_taken_over(tmp_path):
    (tmp_path / "supervisord.pid").write_text("1\n")
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], check=False, timeout=600)
    assert done.returncode == 1


def test_a_killed_process_comes_back_and_a_stopped_supervisor_takes_all_with_it(supervision):
    supervision.start()
    first = eventually(lambda: process_of(supervision, "sleeper"))
    os.kill(first, signal.SIGKILL)
    second = eventually(lambda: process_of(supervision, "sleeper", other_than=first))
    log = supervision.folder / "sleeper.log"
    eventually(lambda: log.read_text().splitlines()[-1:] == ["['two words', '50%'] 100%"])
    supervision.start()  # a second start finds it up
    assert process_of(supervision, "sleeper") == second
    supervision.stop()
    assert not supervision.runs()
    assert not lives(second)


def test_what_becomes_the_supervisor_in_the_foreground_stops_the_one_in_the_background(supervision):
    """As `systemctl enable --now` after `join`: two supervisors would want the same ports."""
    supervision.start()
    first = eventually(lambda: process_of(supervision, "sleeper"))
    config = supervision.folder
    become = (
        "import pathlib, sys; from healthfm_core.supervision import Program, Supervision;"
        "sleeper = Program('sleeper', [sys.executable, '-c', sys.argv[2]]);"
        "Supervision(pathlib.Path(sys.argv[1]), [sleeper], {'MARK': ''}).become()"
    )
    command = [sys.executable, "-c", become, str(config), SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as foreground:
        second = eventually(lambda: process_of(supervision, "sleeper", other_than=first))
        assert not lives(first)
        foreground.terminate()
        assert foreground.wait(timeout=600) == 0
    assert not lives(second)


def test_when_the_supervisor_is_killed_its_processes_end_and_it_starts_again(supervision):
    supervision.start()
    child = eventually(lambda: process_of(supervision, "child"))
    sleeper = eventually(lambda: process_of(supervision, "sleeper"))
    eventually(lambda: "up" in (supervision.folder / "child.log").read_text())
    os.kill(int((supervision.folder / "supervisord.pid").read_text()), signal.SIGKILL)
    eventually(lambda: not lives(child))
    os.kill(sleeper, signal.SIGKILL)  # this one does not look for its supervisor
    supervision.start()
    assert eventually(lambda: process_of(supervision, "child", other_than=child))


def test_a_supervisor_that_cannot_start_says_where_to_look(tmp_path):
    folder = tmp_path / "taken"
    supervised = Supervision(folder, [], {})
    supervised.write()
    (folder / "supervisord.log").mkdir()
    with pytest.raises(RunError, match=r"HF-721.*supervisord\.log"):
        supervised.start()


def test_the_socket_of_a_deep_folder_is_short_enough_to_be_bound(tmp_path):
    deep = tmp_path.joinpath(*["folder"] * 20)
    path = socket_of(deep)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    path.unlink()
    assert socket_of(deep) == path != socket_of(tmp_path)


def test_the_executor_finds_what_it_starts_where_nobody_set_a_path(tmp_path, monkeypatch):
    study = StudyFolder.create(
        tmp_path / "study", StudySettings(study="demo", hosts=("127.0.0.1",), port=1)
    )
    started = {}
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(
        os, "execve", lambda path, _, environment: started.update(environment, tool=path)
    )
    executor.serve(study)
    assert shutil.which(started["tool"])
    found = shutil.which("flwr-serverapp", path=started["PATH"])
    assert found is not None
    assert Path(found).parent == Path(sys.executable).parent
