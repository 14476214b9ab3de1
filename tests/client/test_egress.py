"""The egress log: whatever leaves is in it first, and no line of it can be changed unseen."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from healthfm_client.__main__ import main
from healthfm_client.egress.egress_log import EgressLog
from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import PolicyError, TrustError
from healthfm_core.federation import protocol
from healthfm_server.transport.array_records import read
from tests import enrolled


@pytest.fixture
def log(tmp_path: Path) -> EgressLog:
    log = EgressLog(tmp_path / "egress.log")
    for number in range(5):
        log.append("train", {"round": str(number), "bytes": 7})
    return log


def lines(log: EgressLog) -> list[bytes]:
    return log.path.read_bytes().splitlines(keepends=True)


def test_a_log_is_whole_and_only_its_owner_reads_it(log: EgressLog) -> None:
    assert log.verify() == 5
    assert [entry["round"] for entry in log.entries()] == list("01234")
    assert log.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("at", range(5))
def test_a_changed_line_is_named(log: EgressLog, at: int) -> None:
    found = lines(log)
    found[at] = found[at].replace(b'"bytes":7', b'"bytes":8')
    log.path.write_bytes(b"".join(found))
    with pytest.raises(TrustError, match=rf"HF-822.*line {at + 1} "):
        log.verify()


def test_a_changed_line_with_a_new_hash_breaks_the_next(log: EgressLog) -> None:
    other = EgressLog(log.path.with_name("other.log"))
    other.append("train", {"round": "0", "bytes": 8})
    log.path.write_bytes(b"".join([lines(other)[0], *lines(log)[1:]]))
    with pytest.raises(TrustError, match=r"HF-822.*line 2 "):
        log.verify()


@pytest.mark.parametrize(
    "cut", [lambda x: x[1:], lambda x: x[:2] + x[3:], lambda x: [x[1], x[0], *x[2:]]]
)
def test_a_line_that_is_missing_or_moved_is_seen(log: EgressLog, cut) -> None:
    log.path.write_bytes(b"".join(cut(lines(log))))
    with pytest.raises(TrustError, match="HF-822"):
        log.verify()


@pytest.mark.parametrize("left", [0, 1, 4])
def test_an_end_cut_off_is_seen_and_nothing_is_appended(log: EgressLog, left: int) -> None:
    log.path.write_bytes(b"".join(lines(log)[:left]))
    with pytest.raises(TrustError, match=rf"HF-822.*ends at line {left}"):
        log.verify()
    with pytest.raises(TrustError, match="HF-822"):
        log.append("train", {})


def test_a_line_cut_short_by_a_kill_is_taken_off_and_noted(log: EgressLog) -> None:
    with log.path.open("ab") as file:
        file.write(b'{"at":"2026')
    log.append("train", {"round": "5"})
    assert [entry["what"] for entry in log.entries()][-2:] == ["mended", "train"]
    assert log.verify() == 7


def test_a_kill_between_the_line_and_the_head_is_no_change(log: EgressLog, tmp_path: Path) -> None:
    head = (tmp_path / "egress.head").read_bytes()
    log.append("train", {"round": "5"})
    (tmp_path / "egress.head").write_bytes(head)
    assert log.verify() == 6
    log.append("train", {"round": "6"})
    assert log.verify() == 7


def test_long_lines_are_found_again(tmp_path: Path) -> None:
    log = EgressLog(tmp_path / "egress.log")
    for number in range(3):
        log.append("train", {"names": ["x" * 100] * 5000, "round": str(number)})
    assert log.verify() == 3


WRITER = """
import sys
from pathlib import Path
from healthfm_client.egress.egress_log import EgressLog
log = EgressLog(Path(sys.argv[1]))
print("begun", flush=True)
while True:
    log.append("train", {"names": ["a" * 50] * 200})
    print("one", flush=True)
"""


def test_killed_while_it_writes_the_log_is_whole_and_has_all_that_it_said(tmp_path: Path) -> None:
    """Real processes, kill -9 after more and more lines; what was reported as written is there."""
    path = tmp_path / "egress.log"
    written = 0
    for lines in range(1, 7):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        for _ in range(lines):
            assert process.stdout.readline() == b"one\n"
        time.sleep(0.001 * lines)  # into the next line, so far or so far
        process.send_signal(signal.SIGKILL)
        written += lines + process.stdout.read().count(b"one")
        process.stdout.close()
        process.wait()
    assert EgressLog(path).verify() >= written
    EgressLog(path).append("train", {})
    assert EgressLog(path).verify() > written


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "egress.log"
    program = WRITER.replace("while True", "for _ in range(20)")
    both = [
        subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(600) for process in both] == [0, 0]
    assert EgressLog(path).verify() == 40


def test_every_reply_of_a_run_is_in_the_log_as_it_left(tmp_path: Path) -> None:
    study, sites = enrolled.three(tmp_path)
    grid = enrolled.Wire(sites)
    enrolled.run(grid, study, tmp_path / "run")
    for number, site in enumerate(sites, start=1):
        entries = list(SiteHome(site.home).log().entries())
        left = [reply for reply in grid.back if reply.metadata.src_node_id == number]
        kinds = [reply.metadata.message_type for reply in left]
        assert [entry["what"] for entry in entries] == kinds
        assert kinds == [protocol.STATISTICS, protocol.PREPARE, *[protocol.TRAIN] * 4]
        for entry, reply in zip(entries, left, strict=True):
            assert set(entry["records"]) == set(reply.content)
            if protocol.ARRAYS in reply.content:
                sent = read(reply.content.array_records[protocol.ARRAYS])
                logged = entry["records"][protocol.ARRAYS]["arrays"]
                assert {n: (tuple(a["shape"]), a["sha256"]) for n, a in logged.items()} == {
                    n: (a.shape, hashlib.sha256(a.tobytes()).hexdigest()) for n, a in sent.items()
                }
        assert entries[-2]["records"]["metrics"]["values"] == {"loss_pull": float(number)}
        judged = entries[-1]["records"]["metrics"]["values"]
        assert judged
        assert {name.partition("/")[0] for name in judged} == {"held_out"}


def test_when_it_cannot_be_written_nothing_leaves(tmp_path: Path) -> None:
    """The log is a full disk, which a run as root meets too."""
    study, sites = enrolled.three(tmp_path)
    (sites[1].home / "egress.log").symlink_to("/dev/full")
    grid = enrolled.Wire(sites)
    enrolled.run(grid, study, tmp_path / "run")
    left = [reply for reply in grid.back if reply.metadata.src_node_id == 2]
    assert left
    assert {reply.error.code for reply in left} == {507}


def test_a_log_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "egress.log").mkdir()
    with pytest.raises(PolicyError, match=r"HF-507.*directory"):
        EgressLog(tmp_path / "egress.log").append("train", {})


def test_audit_shows_every_line_and_verify_proves_them(tmp_path: Path, capsys) -> None:
    study, sites = enrolled.three(tmp_path)
    enrolled.run(enrolled.Wire(sites), study, tmp_path / "run")
    home = str(sites[0].home)
    assert main(["audit", "--site", home]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 6
    assert "arrays: 6 arrays" in shown[2]
    assert "loss_pull" in shown[2]
    assert main(["audit", "--site", home, "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["audit", "--site", home, "--verify", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole == {"lines": 6, "last": entries[-1]["hash"], "whole": True}
    log = sites[0].home / "egress.log"
    log.write_bytes(log.read_bytes().replace(b"loss_pull", b"loss_pill"))
    assert main(["audit", "--site", home, "--verify"]) == 9
    assert "HF-822" in capsys.readouterr().err


def test_a_reply_with_a_record_that_is_not_on_the_list_is_held_back() -> None:
    from flwr.app import ConfigRecord, RecordDict

    from healthfm_client.egress import egress_filter

    for content in (
        RecordDict({"people": ConfigRecord({"name": "x"})}),
        RecordDict({protocol.SITE: ConfigRecord({"site": "a", "postcode": "1010"})}),
        RecordDict({protocol.WEIGHTS: ConfigRecord({})}),
    ):
        with pytest.raises(PolicyError, match="HF-501"):
            egress_filter.check_reply(protocol.STATISTICS, content)
