"""Hostile inputs: sound sources of every reader, corrupted in every way that a seed can choose.

    python -m tests.ingest.hostile [--inputs 10000] [--seed 0] [--drawn 0.5]

A share of them are whole files with hostile contents (`hostile_tables`), the others sound files
whose bytes were corrupted. Each must end in a sound store that can be described, or in an error
with a code; nothing may be left of a store that failed, nor of what it was made from, and the
process must stay under 2 GB. Prints what came of them.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import resource
import sys
import tarfile
import tempfile
import traceback
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from healthfm_client.commands.describe import as_text, describe
from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import HealthFMError
from tests.ingest.hostile_sources import SOURCES, Source, parquet, write

MEMORY_MB = 2048
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
    sys.stdout.flush()


def corrupt(text: bytes, rng: random.Random) -> bytes:
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


def corrupted(seed: int) -> tuple[Source, random.Random]:
    """Return a source with one or two files corrupted, and the rest of the seed's choices."""
    rng = random.Random(seed)
    source = rng.choice(SOURCES)()
    files = dict(source.files)
    for name in rng.sample(sorted(files), min(len(files), rng.randint(1, 2))):
        content = files.pop(name)
        text = corrupt(content if isinstance(content, bytes) else parquet(content), rng)
        if rng.random() < 0.1 and name.endswith(".csv"):
            name += ".gz"
            text = corrupt(gzip.compress(text), rng) if rng.random() < 0.5 else gzip.compress(text)
        files[name] = text
    return replace(source, files=files), rng


def wrap(folder: Path, rng: random.Random) -> Path:
    """Return the source as it is, or as an archive with names that lead elsewhere."""
    choice = rng.random()
    if choice > 0.2:
        return folder
    names = ["../../", "/etc/", "a/b/../../../", "", "C:\\temp\\", "./" * 20]
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    members = [(rng.choice(names) + f.name, f.read_bytes()) for f in files]
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
        target.write_bytes(corrupt(text, rng))
    return target


def attempt(seed: int, place: Path) -> str:
    """Return what came of one corrupted input: ``stored`` or the error's code."""
    source, rng = corrupted(seed)
    write(source, place / "in" / "source")
    path = wrap(place / "in" / "source", rng)
    options = {"key": place / "key"} if rng.random() < 0.1 else {}
    return outcome(source, path, place, **options)


def outcome(source: Source, path: Path, place: Path, **options: object) -> str:
    """Return what came of an input that was written to ``place/in``.

    Raises:
        AssertionError: Something was left behind, or a store is not sound.
    """
    if source.alone and path.is_dir():
        path = path / min(source.files)
    try:
        stores = ingest(source.reader, path, place / "out", **source.options, **options)
    except HealthFMError as error:
        came, kept = error.code, {"in", "key"}
    else:
        came, kept = "stored", {"in", "key", "out"}
        for folder in stores:
            store = SiteStore.open(folder)
            store.check()
            as_text(describe(store, 20))
    left = {entry.name for entry in place.iterdir()} - kept
    if left:
        raise AssertionError(f"{left} is left after {came}")
    return came


def attempt_alone(seed: int) -> str:
    """Return what came of a corrupted input, in a folder of its own."""
    with tempfile.TemporaryDirectory() as place:
        return attempt(seed, Path(place))


def main() -> None:
    """Try many inputs; every crash is printed with the seed or number that repeats it."""
    from tests.ingest.hostile_tables import attempt_drawn

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drawn", type=float, default=0.5, help="share of them [0.5]")
    parser.add_argument("--keep", type=Path, help="folder for drawn inputs that crash")
    options = parser.parse_args()
    drawn = round(options.inputs * options.drawn)
    found: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.inputs - drawn):
        try:
            found[attempt_alone(seed)] += 1
        except Exception as error:
            found["crash"] += 1
            say(f"seed {seed}: {said(error)}")
    say(f"corrupted: {dict(found.most_common())}")
    for number, (source, came) in enumerate(attempt_drawn(drawn, options.seed)):
        found[came if isinstance(came, str) else "crash"] += 1
        if isinstance(came, Exception):
            say(f"drawn {number}, {source.reader}: {said(came)}")
            if options.keep:
                write(source, options.keep / str(number))
    say(f"corrupted and drawn: {dict(found.most_common())}")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say(f"{found.total()} inputs, {found['crash']} crashes, peak memory {used} MB")
    raise SystemExit(bool(found["crash"]) or used > MEMORY_MB)


def said(error: Exception) -> str:
    """Return an error and where it was raised."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"


if __name__ == "__main__":
    main()
