"""What a site's administrator can do wrong: one sentence, its code, and an exit that says so."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from healthfm_client.__main__ import main
from healthfm_client.site.site_home import SiteHome
from healthfm_core.console import exit_code
from healthfm_core.trust.kit import install_kit, make_kit
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys
from tests import enrolled

CODES = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text("utf-8")


def fails_with(code: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that fails; return its one sentence."""
    status = main(words)
    said = capsys.readouterr().err.strip()
    assert status != 0, words
    assert "\n" not in said
    assert f"[{code}]" in said
    assert f"| {code} |" in CODES
    return said


@pytest.mark.parametrize(
    "words", [["pause"], ["resume"], ["leave"], ["audit"], ["requests"], ["approve", "0" * 16]]
)
def test_a_mistyped_folder_is_not_taken_for_a_site(tmp_path, capsys, words):
    nowhere = tmp_path / "mistyped"
    fails_with("HF-830", [words[0], "--site", str(nowhere), *words[1:]], capsys)
    assert not nowhere.exists()


def test_a_folder_that_cannot_be_made_is_a_sentence(capsys):
    words = ["enroll", "--site", "/proc/here", "--study", "https://h", "--name", "a"]
    assert "/proc/here" in fails_with("HF-107", words, capsys)


def test_a_full_disk_is_a_sentence(capsys):
    def work():
        raise OSError(errno.ENOSPC, "No space left on device", "site/egress.log")

    assert exit_code(work) != 0
    assert "[HF-105]: site/egress.log: no space left on device" in capsys.readouterr().err


def site_with_kit(folder: Path, now: datetime | None = None) -> SiteHome:
    authority = enrolled.study(folder / "study")
    home = SiteHome(folder / "site")
    keys = SiteKeys.create(home.keys)
    home.begin("a", enrolled.URL, ["ehr"])
    request = read_request(make_request(keys, "a", enrolled.URL, ["ehr"]))
    kit = make_kit(authority, request, url=enrolled.URL, node_id=1)
    install_kit(kit, home.study, keys, root_fingerprint=authority.fingerprint)
    return home


def test_a_site_joins_with_a_store_that_is_there_or_not_at_all(tmp_path, capsys):
    home = site_with_kit(tmp_path)
    words = ["join", "--site", str(home.path), "--store", str(tmp_path / "mistyped")]
    fails_with("HF-208", words, capsys)
    assert not (home.process / "supervisord.pid").exists()


def test_a_site_does_not_join_with_a_certificate_that_has_ended(tmp_path, capsys, monkeypatch):
    home = site_with_kit(tmp_path)
    later = datetime(2090, 1, 1, tzinfo=UTC)
    monkeypatch.setattr("healthfm_core.trust.certificates.now_utc", lambda: later)
    words = ["join", "--site", str(home.path), "--store", str(tmp_path)]
    assert "expired on" in fails_with("HF-804", words, capsys)


def test_a_command_that_is_interrupted_says_so(tmp_path):
    waits = "import signal; from healthfm_core.console import exit_code;"
    waits += "signal.signal(signal.SIGINT, signal.default_int_handler);"  # tests may ignore it
    waits += "up = lambda: (print('up', flush=True), signal.pause());"
    waits += "raise SystemExit(exit_code(up))"
    with subprocess.Popen(
        [sys.executable, "-c", waits], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.send_signal(2)
        _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert re.fullmatch(r"Interrupted; nothing was left half-written\.\n", said)
