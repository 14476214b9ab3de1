"""Hostile inputs: sound sources of every reader, spoilt in every way that a seed can choose.

    python -m tests.ingest.hostile [--inputs 10000] [--seed 0]

Each input must end in a sound store or in an error with a code; nothing may be left of a store
that failed, nor of what it was made from, and the process must stay under 2 GB. Prints what came of
them.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import resource
import shutil
import sys
import tarfile
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from healthfm_client.ingest import ingest
from healthfm_core.data.store import SiteStore
from healthfm_core.errors import HealthFMError
from tests.ingest.conftest import warehouse
from tests.ingest.test_devices import HEALTH
from tests.ingest.test_fhir import RESOURCES

MEMORY_MB = 2048
CDM = Path(__file__).with_name("omop_cdm")
WORDS = [
    b"NULL",
    b"",
    b"NaN",
    b"inf",
    b"-1",
    b"1e400",
    b"0000-01-01",
    b"9999-12-31",
    b"99999-01-01",
    b"2020-13-45",
    b"\x00",
    b"\xff\xfe",
    "\U0001f4a3".encode(),
    b'"',
    b'"""',
    b"\r",
    b"\n\n",
    b"9" * 30,
    b"x" * 300_000,
    b"../../etc/passwd",
    b"'; DROP TABLE x; --",
    b"{" * 3000,
    b"[" * 3000,
    b"<!ENTITY a 'b'>",
    b"<!DOCTYPE",
    b"true",
    b"1",
    b"2",
]


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def omop(folder: Path) -> str:
    shutil.copytree(CDM, folder)
    return "omop"


def fhir_lines(folder: Path) -> str:
    folder.mkdir()
    (folder / "all.ndjson").write_text("\n".join(json.dumps(one) for one in RESOURCES))
    return "fhir"


def fhir_bundle(folder: Path) -> str:
    folder.mkdir()
    entries = [{"resource": one, "fullUrl": "urn:uuid:1"} for one in RESOURCES]
    (folder / "one.json").write_text(json.dumps({"resourceType": "Bundle", "entry": entries}))
    return "fhir"


def event_table(folder: Path) -> str:
    folder.mkdir()
    pq.write_table(warehouse(), folder / "events.parquet")
    return "event_table"


def fitbit(folder: Path) -> str:
    folder.mkdir()
    (folder / "hr.csv").write_text(
        "datetime,person_id,heart_rate_value\n2020-01-02T08:00:00,7,60\n2020-01-02T08:01:00,8,50\n"
    )
    (folder / "sleep.csv").write_text(
        "person_id,level,start_datetime,duration_in_min\n7,light,2020-01-02T23:59:00,2\n"
    )
    head = "Id,Date,ActivityHour," + ",".join(f"Steps{n:02d}" for n in range(60))
    row = "7,13-04-2016,1:00:00 AM," + ",".join("1" * 60)
    (folder / "wide.csv").write_text(f"{head}\n{row}\n{row}\n")
    (folder / "days.csv").write_text("Id,SleepDay,TotalMinutesAsleep\n7,4/13/2016,300\n")
    return "fitbit"


def apple(folder: Path) -> str:
    folder.mkdir()
    (folder / "export.xml").write_text(HEALTH.format(entity=""))
    return "apple_health"


def pgs(folder: Path) -> str:
    folder.mkdir()
    lines = [f"a,{n},PGS1,{n},{n / 9}" for n in range(9)]
    (folder / "s.csv").write_text("\n".join(["sampleset,IID,PGS,SUM,Z_norm2", *lines]))
    return "pgsc_calc"


def sscore(folder: Path) -> str:
    folder.mkdir()
    (folder / "a.sscore").write_text("#IID\tA_SUM\tB_AVG\n1\t1\t2\n2\t2\t1\n")
    return "sscore"


SOURCES: list[Callable[[Path], str]] = [
    omop,
    fhir_lines,
    fhir_bundle,
    event_table,
    fitbit,
    apple,
    pgs,
    sscore,
]


def spoil(text: bytes, rng: random.Random) -> bytes:
    """Return a text after one to four changes of a kind that files suffer."""
    for _ in range(rng.randint(1, 4)):
        at, end = sorted(rng.randint(0, len(text)) for _ in range(2))
        choice = rng.randrange(9)
        if choice == 0:
            text = text[:at]
        elif choice == 1:
            text = text[:at] + rng.choice(WORDS) + text[at:]
        elif choice == 2:
            text = text[:at] + rng.choice(WORDS) + text[min(at + rng.randint(0, 12), len(text)) :]
        elif choice == 3:
            text = text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
        elif choice == 4:
            text = text[:end] + text[at:end][:50_000] + text[end:]
        elif choice == 5:
            text = text[:at] + text[end:]
        elif choice == 6:
            lines = text.split(b"\n")
            rng.shuffle(lines)
            text = b"\n".join(lines)
        elif choice == 7:
            cells = text.split(b",")
            cells[rng.randrange(len(cells))] = rng.choice(WORDS)
            text = b",".join(cells)
        elif rng.random() < 0.2:
            text = text.decode("utf-8", "replace").encode("utf-16")
    return text


def wrap(folder: Path, rng: random.Random) -> Path:
    """Return the source as it is, or as an archive with names that lead elsewhere."""
    choice = rng.random()
    if choice > 0.2:
        return folder
    names = ["../../", "/etc/", "a/b/../../../", "", "C:\\temp\\", "./" * 20]
    members = [(rng.choice(names) + f.name, f.read_bytes()) for f in sorted(folder.iterdir())]
    if choice < 0.02:
        members.append(("bomb.csv", b"0" * 80_000_000))
    target = folder.with_name("source.zip" if choice < 0.1 else "source.tgz")
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as whole:
            for name, text in members:
                whole.writestr(name, text)
    else:
        with tarfile.open(target, "w:gz") as tar:
            for name, text in members:
                member = tarfile.TarInfo(name)
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
            link = tarfile.TarInfo("link.csv")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    if rng.random() < 0.2:
        text = target.read_bytes()
        target.write_bytes(spoil(text, rng))
    return target


def attempt(seed: int, place: Path) -> str:
    """Return what came of one hostile input: ``stored`` or the error's code.

    Raises:
        AssertionError: Something was left behind, or a store is not sound.
    """
    rng = random.Random(seed)
    folder = place / "in" / "source"
    folder.parent.mkdir()
    source = rng.choice(SOURCES)(folder)
    files = sorted(folder.iterdir())
    for file in rng.sample(files, min(len(files), rng.randint(1, 2))):
        text = spoil(file.read_bytes(), rng)
        if rng.random() < 0.1 and file.suffix == ".csv":
            file.unlink()
            file = file.with_name(f"{file.name}.gz")
            text = spoil(gzip.compress(text), rng) if rng.random() < 0.5 else gzip.compress(text)
        file.write_bytes(text)
    path = wrap(folder, rng)
    if source in ("apple_health", "pgsc_calc", "sscore") and path == folder:
        path = sorted(folder.iterdir())[0] if source != "sscore" else folder
    options = {"key": place / "key"} if rng.random() < 0.1 else {}
    try:
        stores = ingest(source, path, place / "out", **options)
    except HealthFMError as error:
        outcome, kept = error.code, {"in", "key"}
    else:
        outcome, kept = "stored", {"in", "key", "out"}
        for store in stores:
            SiteStore.open(store).check()
    left = {entry.name for entry in place.iterdir()} - kept
    if left:
        raise AssertionError(f"{left} is left after {outcome}")
    return outcome


def attempt_alone(seed: int) -> str:
    """Return what came of an input, in a folder of its own."""
    with tempfile.TemporaryDirectory() as place:
        return attempt(seed, Path(place))


def main() -> None:
    """Try many inputs; every crash is printed with the seed that repeats it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.inputs):
        try:
            found[attempt_alone(seed)] += 1
        except Exception as error:
            found["crash"] += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {str(error)[:200]}"
            say(f"seed {seed}: {said} ({where.filename}:{where.lineno})")
    say(str(dict(found.most_common())))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say(f"{options.inputs} inputs, {found['crash']} crashes, peak memory {used} MB")
    raise SystemExit(bool(found["crash"]) or used > MEMORY_MB)


if __name__ == "__main__":
    main()
