"""The readers there are: every module of `readers` that has a `READER`."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Final

import healthfm_client.ingest.readers as package
from healthfm_client.ingest.reader_interface import Reader
from healthfm_client.ingest.tables.archives import SUFFIXES
from healthfm_core.errors import IngestError

AUTO: Final = "auto"
"""In place of a reader's name: whichever recognises the path."""
_DATABASES: Final = (".duckdb", ".sqlite", ".sqlite3", ".db", ".mdb", ".bak", ".dmp")
_LOOKED_AT: Final = 400
"""Files and folders below a path that are tried, at most."""
_NAMED: Final = 3
_POINTLESS: Final = frozenset({302, 303, 306, 307})
"""Errors of a reader that was pointed at something else than what it reads."""


@cache
def readers() -> dict[str, Reader]:
    """Return name → reader, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = [import_module(f"{package.__name__}.{name}") for name in names]
    registered = [
        module.READER for module in modules if isinstance(vars(module).get("READER"), Reader)
    ]
    return {reader.name: reader for reader in registered}


def find(source: str, path: Path) -> Reader:
    """Return the reader called `source`, or for ``auto`` the one that recognises `path`.

    Raises:
        IngestError: HF-301 where `path` does not exist, HF-302 where no reader, or more than one,
            fits.
    """
    if not path.exists():
        raise IngestError(301, where=path.name, seen="there is no such file or folder")
    known = readers()
    fitting = [r for r in known.values() if r.sniff(path)] if source == AUTO else []
    reader = fitting[0] if len(fitting) == 1 else known.get(source)
    if reader is None:
        fits = ", ".join(r.name for r in fitting)
        raise IngestError(
            302,
            where=path.name if source == AUTO else source,
            seen=f"{fits} all recognise it" if fits else "no reader fits",
            wanted=f"one of {', '.join(known)} is wanted",
            do=None if fits else what_to_point_at(path, list(known.values())),
        )
    return reader


def opened_as_it_is(source: str, path: Path) -> bool:
    """Whether the reader called `source`, or for ``auto`` one that recognises it, opens a zip."""
    able = [reader for reader in readers().values() if reader.opens_archives]
    return any(reader.name == source or (source == AUTO and reader.sniff(path)) for reader in able)


def pointed(error: IngestError, reader: Reader, path: Path) -> IngestError:
    """Return an error of a reader, with what to point at where it does not recognise the path."""
    if error.number not in _POINTLESS or reader.sniff(path):
        return error
    do = what_to_point_at(path, [reader])
    if do is None:
        return error
    return IngestError(error.number, where=error.where, seen=error.seen, wanted=error.wanted, do=do)


def what_to_point_at(path: Path, among: Sequence[Reader]) -> str | None:
    """Return what to name instead of a path that no reader recognises, None where nothing is found.

    Args:
        path: A file or a folder.
        among: The readers that may be meant.
    """
    files = islice(path.rglob("*"), 100 * _LOOKED_AT) if path.is_dir() else [path]
    below = sorted(files, key=_depth)[:_LOOKED_AT]
    read = [file for file in below if any(reader.sniff(file) for reader in among)]
    highest = [one for one in read if not any(up in one.parents for up in read)]
    if highest:
        first = "Unpack it and point" if path.name.startswith(".") else "Point"
        return f"{first} at {_names(highest, path)}"
    archives = [one for one in below if one.name.lower().endswith(SUFFIXES) and one.is_file()]
    if archives and archives != [path]:
        apart = "" if len(archives) == 1 else ", one at a time, or unpack them into one folder"
        return f"Point at the archive itself: {_names(archives, path)}{apart}"
    databases = [one for one in below if one.name.lower().endswith(_DATABASES) and one.is_file()]
    if databases:
        what = _names(databases, path)
        return f"{what} is a database: export each table as Parquet into a folder, and point at it"
    return None


def _depth(path: Path) -> tuple[int, str]:
    return len(path.parts), path.as_posix()


def _names(found: Sequence[Path], path: Path) -> str:
    """Return a few paths as whoever named `path` would write them; ours are hidden."""
    top = "" if path.name.startswith(".") else path.name
    some = [(top / one.relative_to(path)).as_posix() for one in found[:_NAMED]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(some) + more
