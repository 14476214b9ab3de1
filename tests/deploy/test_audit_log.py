"""The audit log: one chain over many files and processes, and nobody can flood it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections import Counter

import pytest

from healthfm_core.errors import TrustError
from healthfm_server.__main__ import main
from healthfm_server.deploy import audit_log
from healthfm_server.deploy.audit_log import (
    ALTERED,
    MOST_AT_ONCE,
    MOST_COUNTED,
    MOST_REMEMBERED,
    WINDOW_S,
    AuditLog,
    BackgroundAuditLog,
)
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.deploy.study_status import CONNECTED, last_connections


@pytest.fixture
def log(tmp_path):
    return AuditLog(tmp_path / "audit.log", "gateway")


def rotated(tmp_path, lines=60):
    """A log of several files."""
    log = AuditLog(tmp_path / "audit.log", "gateway", rotate_bytes=2000)
    for number in range(lines):
        log.note("site connected", {"site": str(number)})
    assert len(list(tmp_path.glob("audit-0*.log"))) > 3
    return log


def test_events_are_lines_and_a_line_cut_short_is_left_out_and_mended(log):
    log.note("site connected", {"site": "a"})
    with log.path.open("a") as file:
        file.write('{"at": "2026')
    assert [row["event"] for row in log.rows()] == ["site connected"]
    log.note("site connected", {"site": "b"})
    assert [entry["event"] for entry in log.entries()] == [CONNECTED, "mended", CONNECTED]


def test_the_chain_is_unbroken_over_rotated_files(tmp_path):
    log = rotated(tmp_path)
    assert [entry["site"] for entry in log.entries()] == [str(n) for n in range(60)]
    assert [row["site"] for row in log.rows()] == [str(n) for n in range(60)]
    sizes = [path.stat().st_size for path in tmp_path.glob("audit-0*.log")]
    assert max(sizes) < 2500


@pytest.mark.parametrize("spoil", ["change", "line", "file", "end", "newest"])
def test_what_is_changed_or_taken_out_of_any_file_is_seen(tmp_path, spoil):
    log = rotated(tmp_path)
    second = tmp_path / "audit-000002.log"
    lines = second.read_bytes().splitlines(keepends=True)
    if spoil == "change":
        second.write_bytes(second.read_bytes().replace(b"gateway", b"gatewax", 1))
    elif spoil == "line":
        second.write_bytes(b"".join(lines[:1] + lines[2:]))
    elif spoil == "file":
        second.unlink()
    elif spoil == "end":
        second.write_bytes(b"".join(lines[:-1]))
    else:
        log.path.unlink(missing_ok=True)
        max(tmp_path.glob("audit-0*.log")).unlink()
    with pytest.raises(TrustError, match="HF-822"):
        list(log.entries())


def test_the_first_files_may_be_archived(tmp_path):
    log = rotated(tmp_path)
    first = (tmp_path / "audit-000001.log").read_bytes().count(b"\n")
    (tmp_path / "audit-000001.log").unlink()
    assert next(iter(log.entries()))["n"] == first + 1
    assert sum(1 for _ in log.entries()) == 60 - first


def test_a_log_that_somebody_altered_is_kept_and_said_and_the_study_goes_on(tmp_path, log):
    for number in range(3):
        log.note("site connected", {"site": str(number)})
    changed = b"".join(log.path.read_bytes().splitlines(keepends=True)[:-1])
    log.path.write_bytes(changed)
    log.note("site revoked", {"site": "a"})
    rows = log.rows()
    assert [row["event"] for row in rows] == [ALTERED, "site revoked"]
    assert rows[0]["sha256"] == hashlib.sha256(changed).hexdigest()
    assert (tmp_path / rows[0]["file"]).read_bytes() == changed
    with pytest.raises(TrustError, match=r"HF-822.*ends at line 2, and had 3"):
        list(log.entries())


def test_a_log_of_a_release_without_a_chain_is_kept_and_its_hash_is_in_the_chain(tmp_path, log):
    old = '{"at": "2026-01-01T00:00:00", "event": "site connected", "site": "a"}\n{"at": "20'
    log.path.write_text(old)
    log.note("site connected", {"site": "b"})
    events = [row["event"] for row in log.rows()]
    assert events == [CONNECTED, "log without a chain kept", CONNECTED]
    assert last_connections(log)["a"] == "2026-01-01T00:00:00"
    first, _ = log.entries()
    assert first["sha256"] == hashlib.sha256(old.encode()).hexdigest()
    assert (tmp_path / first["file"]).read_text() == old


WRITER = """
import sys
from pathlib import Path
from healthfm_server.deploy.audit_log import AuditLog
log = AuditLog(Path(sys.argv[1]), sys.argv[2], rotate_bytes=1500)
for n in range(40):
    log.note("event", {"k": n})
"""


def test_several_processes_write_one_chain_while_it_is_rotated_and_read(tmp_path):
    path = tmp_path / "audit.log"
    command = [sys.executable, "-c", WRITER, path]
    both = [subprocess.Popen([*command, name]) for name in ("gateway", "superlink")]
    reader = AuditLog(path, "command", rotate_bytes=1500)
    while any(process.poll() is None for process in both):
        list(reader.entries())
    assert [process.wait(600) for process in both] == [0, 0]
    found = Counter(entry["process"] for entry in reader.entries())
    assert found == {"gateway": 40, "superlink": 40}


def test_a_repeated_refusal_is_counted_and_written_once_a_minute(log):
    for _ in range(1000):
        log.note_refusal("call refused", {"from": "x", "reason": "no token"}, now_s=0.0)
    log.note_refusal("call refused", {"from": "y", "reason": "no token"}, now_s=0.0)
    log.note_refusal("call refused", {"from": "x", "reason": "no token"}, now_s=WINDOW_S)
    found = [(row["from"], row.get("again", 0)) for row in log.rows()]
    assert found == [("x", 0), ("y", 0), ("x", 999), ("x", 0)]


def test_other_paths_are_no_other_refusals(log):
    for number in range(1000):
        details = {"from": "x", "reason": "not here", "path": f"/{number}"}
        log.note_refusal("path refused", details, now_s=0.0)
    assert [row["path"] for row in log.rows()] == ["/0"]


@pytest.mark.parametrize("addresses", [1, 10_000_000])
def test_a_day_of_200_refusals_a_second_is_some_megabytes_and_all_are_counted(
    tmp_path, addresses, monkeypatch
):
    """One address with ever other paths, or ever other addresses; ten minutes of it."""
    log = AuditLog(tmp_path / "audit.log", "gateway")
    rows = []
    monkeypatch.setattr(log, "_write", rows.extend)
    minutes = 10
    calls = minutes * 60 * 200
    for number in range(calls):
        details = {"from": f"{number % addresses}", "reason": "none", "path": f"/{number:>100}"}
        log.note_refusal("path refused", details, now_s=number / 200)
        assert len(log._counts._seen) <= MOST_REMEMBERED
        assert len(log._counts._again) <= MOST_REMEMBERED + 1
    log.note_counts(calls / 200 + WINDOW_S)
    day_bytes = 24 * 60 / minutes * sum(len(json.dumps(row)) + 180 for row in rows)
    assert day_bytes < (2_000_000 if addresses == 1 else 30_000_000)
    assert sum(row.get("again", 1) for row in rows) == calls
    assert len(rows) <= (minutes + 1) * (MOST_AT_ONCE + MOST_COUNTED + 1)


def test_in_the_background_the_caller_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    disk = threading.Event()
    add = audit_log.ChainedLog.add

    def slow(chain, rows):
        assert disk.wait(600)
        return add(chain, rows)

    monkeypatch.setattr(audit_log.ChainedLog, "add", slow)
    log = BackgroundAuditLog(tmp_path / "audit.log", "gateway")
    for number in range(100):
        log.note("site connected", {"site": str(number)})
    disk.set()
    log.flush()
    assert [entry["site"] for entry in log.entries()] == [str(n) for n in range(100)]
    log.close()


def test_in_the_background_a_disk_that_refuses_is_tried_again_and_the_lost_are_counted(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(audit_log, "RETRY_S", 0.0)
    monkeypatch.setattr(audit_log, "MOST_WAITING", 10)
    refusals = [OSError("full"), OSError("full")]
    add = audit_log.ChainedLog.add
    noted = threading.Event()

    def full(chain, rows):
        assert noted.wait(600)
        if refusals:
            raise refusals.pop()
        return add(chain, rows)

    monkeypatch.setattr(audit_log.ChainedLog, "add", full)
    log = BackgroundAuditLog(tmp_path / "audit.log", "gateway")
    for number in range(40):
        log.note("event", {"k": str(number)})
    noted.set()
    log.close()
    events = list(log.entries())
    lost = sum(entry["lines"] for entry in events if entry["event"] == "lines lost")
    assert lost + sum(entry["event"] == "event" for entry in events) == 40
    assert lost > 0


def test_what_is_counted_when_the_process_ends_is_written(tmp_path):
    log = BackgroundAuditLog(tmp_path / "audit.log", "gateway")
    for _ in range(5):
        log.note_refusal("call refused", {"from": "x"})
    log.close()
    assert [row.get("again") for row in log.rows()] == [None, 4]


def test_the_command_lists_all_files_and_proves_them(tmp_path, capsys):
    settings = StudySettings(study="demo", hosts=("127.0.0.1",))
    study = StudyFolder.create(tmp_path / "study", settings)
    rotated(study.path)
    where = ["--study", str(study.path)]
    assert main(["audit", *where]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 60
    assert main(["audit", *where, "--verify"]) == 0
    assert "60 lines, none changed" in capsys.readouterr().out
    file = study.path / "audit-000002.log"
    file.write_bytes(file.read_bytes().replace(b"gateway", b"gatewax", 1))
    assert main(["audit", *where, "--verify"]) == 9
    assert "HF-822" in capsys.readouterr().err
