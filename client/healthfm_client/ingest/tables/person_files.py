"""Whose the files of an export are: a folder or a .zip for each person, as people hand them in.

Below the path that is named, the first folder or .zip says whose a file is, unless it is a part of
the export itself (``Takeout``): then all is one person's, named by an option or like the path. A
.zip is read where it is, member by member, and nothing of it is written to disk. A name like
``takeout-20240102T101112Z-3-002.zip`` is one of the parts of an archive.
"""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

from healthfm_client.ingest.tables.archives import EXPANDS_AT_MOST, MEMBERS_AT_MOST
from healthfm_core.errors import IngestError

ZIP: Final = ".zip"
FILE_AT_MOST: Final = 64 * 1024**2
"""Bytes of one file of an export, which is read at once."""
LEAST_BYTES: Final = 64 * 1024**2
"""What a .zip may hold whatever its own size."""
_HEAD_BYTES: Final = 4096
_LOOKED_AT: Final = 5_000
"""Files below a path among which an export is looked for."""
_PART: Final = re.compile(r"-\d{3}$")
_BROKEN: Final = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class PersonFile:
    """A file of an export, or a member of a .zip.

    Attributes:
        path: The file, or the .zip.
        member: Name in the .zip; None of a file, and of a .zip that is no whole one.
        parts: Names of the folders that it lies in, as far as they are the export's, and its own.
    """

    path: Path
    member: str | None
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name, in lower case."""
        return self.parts[-1].lower()

    @property
    def folder(self) -> str:
        """Name of the folder that it lies in, in lower case; '' where that is the person's."""
        return self.parts[-2].lower() if len(self.parts) > 1 else ""


@dataclass(frozen=True)
class PersonPlace:
    """Where files of a person lie.

    Attributes:
        path: A folder, a .zip or a file.
        above: Names that the files have before those below the path.
        below: In a .zip, names of the person's folder, which are left out.
    """

    path: Path
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    def files(self) -> Iterator[PersonFile]:
        """Yield the files in order of their names.

        Raises:
            IngestError: HF-310 for a .zip that is not safe to read.
        """
        if self.path.is_file():
            yield from _of_file(self.path, (*self.above, self.path.name), self.below)
            return
        for file in sorted(self.path.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                parts = (*self.above, *file.relative_to(self.path).parts)
                yield from _of_file(file, parts, ())


@dataclass(frozen=True)
class PeopleFiles:
    """The files of everyone in an export.

    Attributes:
        of: Person, as the site names them → where their files lie.
        beside: .zips that lie side by side, each of which was taken for a person.
        others: Files that lie where nothing is that is read, and so are nobody's.
    """

    of: Mapping[str, Sequence[PersonPlace]]
    beside: int = 0
    others: int = 0

    def files(self, person: str) -> list[PersonFile]:
        """Return the files of a person.

        Raises:
            IngestError: HF-310 for a .zip that is not safe to read.
        """
        return [file for place in self.of[person] for file in place.files()]

    def notices(self) -> tuple[str, ...]:
        """Return what is said where each of several exports was taken for one person."""
        if self.beside < 2:
            return ()
        return (
            f"Each of the {self.beside} archives that lie side by side was taken for another "
            "person, by its name. Put those of one person into a folder of their own.",
        )


def people_files(
    path: Path, inside: frozenset[str], wanted: Callable[[PersonFile], bool], person: str | None
) -> PeopleFiles:
    """Return the files below a path by person.

    Args:
        path: A folder, or a .zip.
        inside: Names of folders, in lower case, that are parts of an export and name nobody.
        wanted: Whether a file is one that is read: a folder without any names nobody.
        person: Whose all of it is; None as the folders say.

    Raises:
        IngestError: HF-310 for a .zip that is not safe to read.
    """
    found: dict[str, list[PersonPlace]] = {}
    zips: set[str] = set()
    for whose, place, is_zip in _places(path, inside, wanted):
        found.setdefault(whose if person is None else person, []).append(place)
        if is_zip and person is None:
            zips.add(whose)
    people = {
        whose: places
        for whose, places in found.items()
        if any(wanted(file) for place in places for file in place.files())
    }
    of_nobody = [place for whose in found if whose not in people for place in found[whose]]
    others = sum(1 for place in of_nobody for _ in place.files())
    return PeopleFiles(people, len(zips & set(people)), others)


def _places(
    path: Path, inside: frozenset[str], wanted: Callable[[PersonFile], bool]
) -> Iterator[tuple[str, PersonPlace, bool]]:
    """Yield (person, place, whether it is a .zip), the parts of an export as those of `path`."""
    own = path.resolve().name if path.is_dir() else _stem(path)
    for entry in sorted(path.iterdir()) if path.is_dir() else [path]:
        if entry.name.startswith("."):
            continue
        if entry.is_file() and entry.name.lower().endswith(ZIP):
            for whose, place in _places_in_zip(entry, inside, wanted).items():
                yield whose, place, path.is_dir()
        elif entry.is_dir() and entry.name.lower() not in inside:
            yield entry.name, PersonPlace(entry), False
        else:
            yield own, PersonPlace(entry, (entry.name,) if entry.is_dir() else ()), False


def _stem(path: Path) -> str:
    return _PART.sub("", path.stem)


def contents(files: Iterable[PersonFile], most: int) -> Iterator[tuple[PersonFile, bytes | None]]:
    """Yield files with their bytes, None where one is damaged, encrypted or over `most` bytes.

    A .zip is opened once for the files that follow each other in it.
    """
    opened: zipfile.ZipFile | None = None
    at: Path | None = None
    try:
        for file in files:
            if file.member is not None and file.path != at:
                if opened is not None:
                    opened.close()
                opened, at = None, None
                try:
                    opened, at = zipfile.ZipFile(file.path), file.path
                except _BROKEN:
                    yield file, None
                    continue
            yield file, _bytes(file, opened, most)
    finally:
        if opened is not None:
            opened.close()


def head_of(file: PersonFile) -> bytes:
    """Return the first bytes of a file, none of one that cannot be read."""
    try:
        if file.member is None:
            with file.path.open("rb") as plain:
                return plain.read(_HEAD_BYTES)
        with zipfile.ZipFile(file.path) as whole, whole.open(file.member) as packed:
            return packed.read(_HEAD_BYTES)
    except _BROKEN:
        return b""


def some_file(path: Path, wanted: Callable[[PersonFile], bool]) -> bool:
    """Whether one of the first files below a path is `wanted`; never raises."""
    try:
        for file in islice(path.rglob("*") if path.is_dir() else [path], _LOOKED_AT):
            if file.is_file() and any(map(wanted, _of_file(file, file.parts[-3:], ()))):
                return True
    except (OSError, IngestError):
        return False
    return False


def _bytes(file: PersonFile, opened: zipfile.ZipFile | None, most: int) -> bytes | None:
    if file.member is None and file.name.endswith(ZIP):
        return None
    try:
        if file.member is None or opened is None:
            with file.path.open("rb") as plain:
                text = plain.read(most + 1)
        else:
            with opened.open(file.member) as packed:
                text = packed.read(most + 1)
    except _BROKEN:
        return None
    return None if len(text) > most else text


def _of_file(path: Path, parts: tuple[str, ...], below: tuple[str, ...]) -> Iterator[PersonFile]:
    """Yield a file, or the members of a .zip, those in the folder `below` alone."""
    members = _members(path) if path.name.lower().endswith(ZIP) else None
    if members is None:
        yield PersonFile(path, None, parts)
        return
    for member, names in sorted(members):
        if names[: len(below)] == below:
            yield PersonFile(path, member, (*parts[:-1], *names[len(below) :]))


def _places_in_zip(
    path: Path, inside: frozenset[str], wanted: Callable[[PersonFile], bool]
) -> dict[str, PersonPlace]:
    """Return person → where in a .zip; it is one person's unless folders in it name some."""
    files = _of_file(path, (), ()) if _members(path) is not None else ()
    first = {f.parts[0] if len(f.parts) > 1 else "" for f in files if wanted(f)}
    if not first or any(not name or name.lower() in inside for name in first):
        return {_stem(path): PersonPlace(path)}
    return {name: PersonPlace(path, below=(name,)) for name in sorted(first)}


def _members(file: Path) -> list[tuple[str, tuple[str, ...]]] | None:
    """Return (name, its parts) of each member of a .zip, None where it is no whole one.

    Raises:
        IngestError: HF-310 where it has too many, or they say that they are too large.
    """
    try:
        with zipfile.ZipFile(file) as whole:
            members = [one for one in whole.infolist() if not one.is_dir()]
            size = file.stat().st_size
    except _BROKEN:
        return None
    if len(members) > MEMBERS_AT_MOST:
        raise _unsafe(file, f"it has more than {MEMBERS_AT_MOST:,} files")
    if sum(one.file_size for one in members) > max(EXPANDS_AT_MOST * size, LEAST_BYTES):
        raise _unsafe(file, f"it unpacks to more than {EXPANDS_AT_MOST} times its size")
    named = [(one.filename, _parts(one.filename)) for one in members]
    return [(name, parts) for name, parts in named if parts and "__MACOSX" not in parts]


def _parts(name: str) -> tuple[str, ...]:
    """Return a member's folders and its name; none of one that is hidden or is no name."""
    names = PurePosixPath(name.replace("\\", "/").replace("\x00", "")).parts
    parts = tuple(one[-200:] for one in names if one.strip("./ "))
    return () if not parts or parts[-1].startswith(".") else parts


def _unsafe(file: Path, seen: str) -> IngestError:
    return IngestError(
        310, where=file.name, seen=seen, wanted="an archive as an export makes them is wanted"
    )
