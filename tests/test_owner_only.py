"""What any of the programs writes is its owner's alone, under the usual umask of 022."""

from __future__ import annotations

import importlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.doctor import site_files
from healthfm_client.site.site_folder import JoinSettings, StoreChoice
from healthfm_client.site.site_home import SiteHome
from healthfm_core.owner_only import close_to_others, closing_command, open_to_others
from healthfm_core.service_units import systemd_unit
from healthfm_core.supervision import Program, Supervision
from healthfm_core.trust.request import read_request
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings

USUAL = 0o022
PATIENCE_S = 600.0


@pytest.fixture(autouse=True)
def usual_umask():
    """The umask that a login gives."""
    before = os.umask(USUAL)
    yield
    os.umask(before)


def typed(*words):
    """Run a command as a person types it, in a process of its own."""
    program, *rest = map(str, words)
    command = [str(Path(sys.executable).with_name(program)), *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_private(folder):
    """Whether nothing of `folder` gives others a right, looked at one by one."""
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 1
    return [str(path) for path in paths if path.lstat().st_mode & 0o077] == []


def test_a_store_of_patients_is_its_owners_alone(tmp_path):
    source = tmp_path / "events.parquet"
    rows = {
        "subject_id": [1, 2, 3],
        "time": pa.array([0, 1, 2]).cast(pa.timestamp("us")),
        "code": ["A", "B", "A"],
        "numeric_value": pa.array([1.0, 2.0, 3.0], pa.float32()),
    }
    pq.write_table(pa.table(rows), source)
    out = tmp_path / "stores" / "mine"
    flags = ["--site-column", ""]
    typed("healthfm-client", "ingest", "event_table", source, "--out", out, *flags)
    assert is_private(tmp_path / "stores")


def test_keys_requests_and_flowers_database_are_their_owners_alone(tmp_path):
    study, north = tmp_path / "study", tmp_path / "north"
    typed("healthfm-server", "init", study, "--name", "heart", "--host", "127.0.0.1")
    url = StudyFolder.open(study).settings.url
    words = ["--study", url, "--name", "north", "--modalities", "ehr"]
    typed("healthfm-client", "enroll", "--site", north, *words)
    compared = read_request((north / "request.zip").read_bytes()).fingerprints()["tls"]
    kit = tmp_path / "kits" / "north-kit.zip"
    kit.parent.mkdir(mode=0o700)
    given = ["--study", study, "--compared", compared, "--out", kit]
    typed("healthfm-server", "site", "sign", north / "request.zip", *given)
    assert (study / "superlink.db").is_file()
    assert all(is_private(folder) for folder in (study, north, kit.parent))


@pytest.mark.parametrize(
    ("module", "inner", "words"),
    [
        ("healthfm_simulations", "_run", []),
        ("healthfm_simulations.experiments", "_run_all", ["a"]),
        ("healthfm_simulations.tuning", "_run", []),
        ("healthfm_simulations.privacy_audit", "_run", []),
    ],
)
def test_simulations_write_for_their_owner_alone(monkeypatch, tmp_path, module, inner, words):
    program = importlib.import_module(f"{module}.__main__")

    def write(*_):
        (tmp_path / "out").mkdir()
        child = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w')"]
        subprocess.run([*child, str(tmp_path / "out" / "by-a-child")], check=True)
        return 0

    monkeypatch.setattr(program, inner, write)
    assert program.main(words) == 0
    assert is_private(tmp_path / "out")
    assert os.umask(USUAL) == USUAL  # it was put back


def test_a_supervised_process_and_its_log_are_their_owners_alone(tmp_path):
    made = tmp_path / "process" / "made"
    write = "import pathlib, signal, sys; pathlib.Path(sys.argv[1]).touch(); signal.pause()"
    program = Program("writer", [sys.executable, "-c", write, str(made)])
    supervisor = Supervision(tmp_path / "process", [program], {})
    supervisor.start()
    try:
        until = time.monotonic() + PATIENCE_S
        while not made.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "process" / "writer.log").stat().st_mode) == 0o600
    finally:
        supervisor.stop()
    service = supervisor.service("healthfm-site", "", [Path(sys.executable).name])
    assert "UMask=0077" in systemd_unit(service).splitlines()


SAY = "print(oct(os.umask(0)), flush=True), os._exit(0)"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import healthfm_server.deploy.study_process as process, os, types\n"
            f"process.import_module = lambda _: types.SimpleNamespace(serve=lambda _: ({SAY}))",
            ["superlink", "--study"],
        ),
        (
            "import healthfm_client.runtime.site_process as process, os\n"
            f"process.PROCESSES['node'] = lambda _: ({SAY})",
            ["node", "--site"],
        ),
    ],
)
def test_a_process_started_without_our_supervisor_has_the_umask_too(tmp_path, code, words):
    study = StudyFolder.create(tmp_path / "s", StudySettings(study="demo", hosts=("127.0.0.1",)))
    command = [sys.executable, "-c", f"{code}\nprocess.main()", *words, str(study.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0o77", done.stderr


def test_what_an_older_release_left_open_is_closed_by_up_and_join_and_nothing_else(tmp_path):
    study = StudyFolder.create(tmp_path / "s", StudySettings(study="demo", hosts=("127.0.0.1",)))
    for path in (study.database, study.path / "superlink.db-wal", study.path / "notes.txt"):
        path.touch(0o644)
    assert study.close_to_others() >= 2
    assert is_private(study.path / "authority")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in study.path.iterdir()}
    assert (modes["superlink.db"], modes["superlink.db-wal"]) == (0o600, 0o600)
    assert modes["notes.txt"] == 0o644  # not ours
    assert study.close_to_others() == 0


def test_the_doctor_says_what_is_open_and_what_to_type(tmp_path):
    home, store = SiteHome(tmp_path / "north"), tmp_path / "a store"
    home.path.mkdir(mode=0o700)
    (store / "data").mkdir(parents=True)
    (store / "data" / "0.parquet").touch()
    home.write_settings(JoinSettings(stores=(StoreChoice(path=store),)))
    (found,) = site_files.modes(home)
    assert (found.level, found.do) == ("warn", f"chmod -R go-rwx '{store}'")
    assert found.seen.startswith("3 files and folders")
    subprocess.run(found.do, shell=True, check=True)
    assert [finding.level for finding in site_files.modes(home)] == ["pass"]


def test_a_closed_folder_is_looked_at_no_further_and_links_are_not_followed(tmp_path):
    shut, wide = tmp_path / "shut", tmp_path / "wide"
    shut.mkdir(mode=0o700)
    (shut / "inside").touch(0o644)
    wide.mkdir()
    (wide / "link").symlink_to(shut / "inside")
    assert list(open_to_others(shut)) == []
    assert list(open_to_others(wide)) == [wide]
    assert close_to_others(wide) == 1
    assert stat.S_IMODE((shut / "inside").stat().st_mode) == 0o644
    assert closing_command(Path("/a b")) == "chmod -R go-rwx '/a b'"


def test_a_process_that_is_interrupted_leaves_the_umask_as_it_was(monkeypatch):
    program = importlib.import_module("healthfm_simulations.__main__")
    monkeypatch.setattr(program, "_run", lambda *_: signal.raise_signal(signal.SIGINT) or 0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Flower's may be in place
    try:
        assert program.main([]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert os.umask(USUAL) == USUAL
