"""Archives of a source: unpacked beside the output, flat in what may go wrong, gone at the end.

A member's path is never followed: it keeps its last two names and goes below the folder made for
it. Links and devices are left where they are. What expands beyond reason is refused before it has
filled the disk.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

from healthfm_core.data.store.event_spool import refuse_full_disk
from healthfm_core.errors import IngestError

SUFFIXES: Final = (".zip", ".tgz", ".tar.gz", ".tar")
"""What the names of archives end with, in lower case."""
EXPANDS_AT_MOST: Final = 200
MEMBERS_AT_MOST: Final = 200_000
_LEAST_BYTES: Final = 64 * 1024**2
_CHUNK: Final = 1 << 20

_BROKEN: Final = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)

Member = tuple[str, IO[bytes]]


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Give the place next to a folder for an archive's files, which are removed at the end."""
    folder = beside.parent / f".{beside.name}.unpacked"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unpack(path: Path, folder: Path) -> Path:
    """Unpack an archive into a new folder, and return the folder.

    Raises:
        IngestError: HF-303, HF-310, HF-311.
    """
    left = max(path.stat().st_size * EXPANDS_AT_MOST, _LEAST_BYTES)
    folder.mkdir(parents=True)
    try:
        for number, (name, source) in enumerate(_members(path)):
            if number >= MEMBERS_AT_MOST:
                raise _unsafe(path, f"it has more than {MEMBERS_AT_MOST:,} files")
            target = _place(folder, name)
            if target is not None:
                left -= _copy(source, target, left, path)
    except _BROKEN as error:
        raise IngestError(
            303,
            where=path.name,
            seen="the archive is cut off, damaged, encrypted or of another kind",
            wanted="a whole zip or tar file is wanted",
            do="Copy it again, or unpack it yourself and name the folder",
        ) from error
    return folder


def _members(path: Path) -> Iterator[Member]:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as whole:
            for one in whole.infolist():
                if not one.is_dir():
                    with whole.open(one) as file:
                        yield one.filename, file
        return
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content


def _place(folder: Path, name: str) -> Path | None:
    """Return where a member goes: ``<its folder>/<its name>``, or None for a system's litter."""
    names = [n for n in PurePosixPath(name.replace("\\", "/")).parts if n.strip("./ \x00")]
    if not names or "__MACOSX" in names or names[-1].startswith("."):
        return None
    target = folder.joinpath(*(n.replace("\x00", "")[-200:] for n in names[-2:]))
    if target.exists() or target.parent.is_file():
        return None
    return target


def _copy(source: IO[bytes], target: Path, most: int, path: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > most:
                raise _unsafe(path, f"it unpacks to more than {EXPANDS_AT_MOST} times its size")
            if size % (64 * _CHUNK) < _CHUNK:
                refuse_full_disk(target.parent, path.name)
            file.write(chunk)
    return size


def _unsafe(path: Path, seen: str) -> IngestError:
    return IngestError(
        310, where=path.name, seen=seen, wanted="an archive as an export makes them is wanted"
    )
