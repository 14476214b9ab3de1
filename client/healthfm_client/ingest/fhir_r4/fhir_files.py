"""Files of FHIR resources, and pieces of them: lines of a bulk export, or entries of a bundle."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from healthfm_client.ingest.fhir_r4.fhir_types import (
    BUNDLE,
    KIND,
    READ,
    RESOURCE,
    Concept,
    Resource,
)
from healthfm_client.ingest.tables.duckdb_reader import expanded, unreadable
from healthfm_core.arrays import UInt8

SUFFIXES: Final = (".ndjson", ".json", ".ndjson.gz", ".json.gz")
PIECE_BYTES: Final = 32 * 1024**2
"""Bytes of lines that are read as one piece."""
BUNDLE_AT_MOST: Final = 256 * 1024**2
"""Bytes of a bundle, which is read at once; a larger one is for a bulk export."""
LINE_AT_MOST: Final = 32 * 1024**2
_BLOCK: Final = 32 * 1024**2
_ROOM: Final = 64 * 1024
"""Bytes of a usual line."""
_BUFFER: Final = 1 << 20


@dataclass(frozen=True)
class Piece:
    """A part of a file: the lines that begin from one byte to another, or all of it.

    Attributes:
        file: The file.
        start: The first byte.
        end: The byte after the last; None is the end of the file.
    """

    file: Path
    start: int = 0
    end: int | None = None


def files_below(path: Path) -> list[Path]:
    """Return the file itself, or those of a folder that may hold resources."""
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [f for f in inside if f.is_file() and f.name.lower().endswith(SUFFIXES)]


def is_lines(file: Path) -> bool:
    """Whether a file has a resource a line, by its name."""
    return ".ndjson" in file.name.lower()


def is_compressed(file: Path) -> bool:
    """Whether a file is compressed, by its name."""
    return file.name.lower().endswith(".gz")


def pieces_of(file: Path) -> list[Piece]:
    """Return a file's pieces in order; a bundle is one, compressed lines cannot be cut."""
    if not is_lines(file):
        return [Piece(file)]
    if is_compressed(file):
        return []
    ends = range(PIECE_BYTES, file.stat().st_size + PIECE_BYTES, PIECE_BYTES)
    return [Piece(file, end - PIECE_BYTES, end) for end in ends] or [Piece(file)]


def opened(file: Path) -> io.BufferedReader:
    """Return a file to read from, unpacked.

    Raises:
        IngestError: HF-303, HF-310.
    """
    try:
        if not is_compressed(file):
            return io.BufferedReader(io.FileIO(file), _BUFFER)
        with file.open("rb") as raw:
            expanded(raw.read(_BUFFER), file)
        return io.BufferedReader(gzip.open(file, "rb"), _BUFFER)
    except OSError as error:
        raise unreadable(file, "it cannot be opened") from error


def blocks(piece: Piece) -> Iterator[UInt8]:
    """Yield the lines that begin in a piece, many at a time; a line of too many bytes is cut.

    Raises:
        IngestError: HF-303, HF-310.
    """
    try:
        with opened(piece.file) as file:
            at = _at_a_line(file, piece.start)
            while piece.end is None or at < piece.end:
                size = _BLOCK if piece.end is None else min(_BLOCK, piece.end - at)
                block = np.frombuffer(pa.allocate_buffer(size + _ROOM), np.uint8)  # used again
                filled = file.readinto(block.data[:size])
                if not filled:
                    break
                whole = block[filled - 1] == ord("\n")
                rest = b"" if whole else file.readline(LINE_AT_MOST)
                at += filled + len(rest)
                yield _followed(block, filled, np.frombuffer(rest, np.uint8))
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(piece.file, "it is cut off or damaged") from error


def _followed(block: UInt8, filled: int, rest: UInt8) -> UInt8:
    """Return what a block is filled with and the rest of its last line, where there is room."""
    end = filled + len(rest)
    if end > len(block):
        return np.concatenate([block[:filled], rest])
    block[filled:end] = rest
    return block[:end]


def lines(file: Path) -> Iterator[Resource | None]:
    """Yield the resource of each line of a file, None for a line that is none.

    Raises:
        IngestError: HF-303, HF-310.
    """
    for block in blocks(Piece(file)):
        yield from map(decoded, block.tobytes().split(b"\n"))


BLANK: Final = Resource()
"""Stands for a line with nothing in it."""


def _at_a_line(file: io.BufferedReader, start: int) -> int:
    """Go to the first line that begins at `start` or behind it, and return where."""
    if not start:
        return 0
    at = file.seek(start - 1)
    while rest := file.readline(_BUFFER):
        at += len(rest)
        if rest.endswith(b"\n"):
            break
    return at


def decoded(text: bytes | msgspec.Raw) -> Resource | None:
    """Return a resource, `BLANK` of nothing, None where it is none of FHIR's."""
    if isinstance(text, bytes) and text.isspace():
        return BLANK
    try:
        return RESOURCE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _passed_over(text)


def _passed_over(text: bytes | msgspec.Raw) -> Resource | None:
    """Return a resource of a type that is not read, whatever else it is; None for others."""
    try:
        kind = KIND.decode(text).resourceType
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Resource(resourceType=kind) if kind and kind not in READ else None


def entries(file: Path, drugs: dict[str, Concept]) -> list[Resource | None] | None:
    """Return the resource of each entry of a bundle, or that of a file with one.

    Args:
        file: The file.
        drugs: Medications of the bundle are added to it.

    Returns:
        None where the file is cut off, damaged or no resource in JSON.

    Raises:
        IngestError: HF-303 where it cannot be opened or is too large, HF-310.
    """
    text = _whole(file)
    if text is None:
        return None
    try:
        bundle = BUNDLE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if bundle.resourceType != "Bundle":
        return [decoded(text)]
    resources = [decoded(entry.resource) for entry in bundle.entry]
    for entry, one in zip(bundle.entry, resources, strict=True):
        if one is not None and one.resourceType == "Medication" and one.code:
            drugs[id_of(entry.fullUrl)] = drugs[one.id or ""] = one.code
        if one is not None and one.resourceType == "Patient" and entry.fullUrl:
            one.id = id_of(entry.fullUrl) or one.id
    return resources


def _whole(file: Path) -> bytes | None:
    """Return a file's content, None where its compression is damaged."""
    with opened(file) as whole:
        try:
            text = whole.read(BUNDLE_AT_MOST + 1)
        except (OSError, EOFError, zlib.error):
            return None
    if len(text) > BUNDLE_AT_MOST:
        raise unreadable(file, f"the bundle is over {BUNDLE_AT_MOST // 1024**2} MB; use ndjson")
    return text


@lru_cache(1 << 18)
def id_of(reference: str | None) -> str:
    """Return the id at the end of a reference: ``Patient/7``, an address, ``urn:uuid:…``."""
    plain = re.sub(r"/_history/[^/]*$", "", reference or "")
    return re.split(r"[/:#]", plain)[-1]
