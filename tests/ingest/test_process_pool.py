"""Work by several processes: the same results in the same order, and what a kill does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.fhir_r4 import fhir_files
from healthfm_client.ingest.process_pool import OrderedPool
from healthfm_client.ingest.readers import fhir
from healthfm_core.errors import ConfigError, IngestError
from tests.ingest.test_fhir import RESOURCES, as_bundle

REFUSED, KILLED = 100, 101


def work(piece: int) -> int:
    if piece == REFUSED:
        raise IngestError(303, where="a", seen="b", wanted="c", do="d")
    if piece == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * piece


def test_results_come_in_the_order_of_the_pieces_until_a_process_is_killed():
    with OrderedPool(work, range(KILLED + 1), 2) as done:
        assert list(done.results(range(3))) == [0, 2, 4]
        assert list(done.results(range(5, 9))) == [10, 12, 14, 16]
        assert list(done.results(range(1))) == [0]
        with pytest.raises(IngestError, match="HF-303"):
            list(done.results(range(REFUSED, KILLED)))
        with pytest.raises(IngestError, match="HF-314"):
            list(done.results(range(KILLED, KILLED + 1)))


WAITING = """
import os, signal, sys
from pathlib import Path
from healthfm_client.ingest.process_pool import OrderedPool

def wait(piece):
    Path(sys.argv[1], str(os.getpid())).touch()
    signal.pause()

if __name__ == "__main__":
    with OrderedPool(wait, range(2), 2) as done:
        list(done.results(range(2)))
"""


def test_processes_end_with_the_one_that_began_them(tmp_path):
    (tmp_path / "wait.py").write_text(WAITING)
    (tmp_path / "begun").mkdir()
    command = [sys.executable, str(tmp_path / "wait.py"), str(tmp_path / "begun")]
    process = subprocess.Popen(command)
    until = time.monotonic() + 600
    while len(list((tmp_path / "begun").iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    begun = [path.name for path in (tmp_path / "begun").iterdir()]
    assert len(begun) == 2
    while any(lives(pid) for pid in begun) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(lives(pid) for pid in begun)


def lives(pid: str) -> bool:
    """Whether a process is there and no zombie."""
    status = Path("/proc", pid, "stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def export(folder: Path) -> Path:
    """Write a bulk export of many short lines, some of them no resource, and two bundles."""
    as_bundle(folder)
    (folder / "one.json").rename(folder / "two.json")
    lab = RESOURCES[4]
    some = [lab | {"effectiveDateTime": f"2020-01-02T08:{n % 60:02d}:00Z"} for n in range(200)]
    some = [one | {"subject": {"reference": f"Patient/{n % 9}"}} for n, one in enumerate(some)]
    texts = [json.dumps(one) if n % 50 else "{odd\n" for n, one in enumerate(some)]
    (folder / "Observation.ndjson").write_text("\n".join(texts))
    return folder


def files(out: Path) -> dict[str, bytes]:
    return {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}


def places_of(out: Path) -> list[dict]:
    return pq.read_table(out / "rejected" / "not_fhir.parquet").to_pylist()


def rows_of(out: Path) -> list[dict]:
    return [row for f in sorted(out.glob("data/*/*")) for row in pq.read_table(f).to_pylist()]


def test_a_store_is_the_same_whatever_the_pieces_and_the_processes(tmp_path, monkeypatch):
    source = export(tmp_path / "in")
    (whole,) = ingest("fhir", source, tmp_path / "whole", key=tmp_path / "key")
    with monkeypatch.context() as patch:
        patch.setattr(fhir, "ROWS_AT_ONCE", 7)
        (little,) = ingest("fhir", source, tmp_path / "little", key=tmp_path / "key")
    assert files(little)["metadata/codes.parquet"] == files(whole)["metadata/codes.parquet"]
    assert places_of(little) == places_of(whole)
    assert rows_of(little) == rows_of(whole)
    monkeypatch.setattr(fhir_files, "PIECE_BYTES", 4000)
    assert len(fhir_files.pieces_of(source / "Observation.ndjson")) > 9
    found = {}
    for workers in (1, 2):
        options = {"key": tmp_path / "key", "workers": workers}
        (out,) = ingest("fhir", source, tmp_path / "out", overwrite=True, **options)
        found[workers] = files(out)
    assert found[1] == found[2]
    events = {name for name in found[1] if name.startswith("data/")}
    assert events
    assert all(found[1][name] == files(whole)[name] for name in events)
    places = pq.read_table(out / "rejected" / "not_fhir.parquet")
    lines = (source / "Observation.ndjson").read_text().split("\n")
    odd = [n for n, line in enumerate(lines, 1) if line == "{odd"]
    of_lines = places.filter(pc.equal(places["file"], "Observation.ndjson"))
    assert of_lines["number"].to_pylist() == odd


def test_fewer_than_one_process_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="HF-102"):
        ingest("fhir", export(tmp_path / "in"), tmp_path / "out", workers=0)
