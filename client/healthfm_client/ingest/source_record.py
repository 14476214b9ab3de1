"""What a store was read from, kept in its dataset.json, so that an update can be held against it.

A file counts as read already where its path, size and time of change are those noted; nothing of a
file's content is kept, and of the site's key a hash of it alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.subject_linking import site_key
from healthfm_core.data.store.event_stream import EventStream
from healthfm_core.data.store.store_files import OWN_KEY

EVENTS: Final = "events"
SCORES: Final = "scores"
WEARABLES: Final = "wearables"
SOURCES: Final = "sources"
_OF_ONE_READING: Final = frozenset(
    {"today", "max_set_aside", "workers", "labels", "splits", "splits_of", "codes"}
)
"""Options that change neither whom a row is of nor what it becomes."""
_BY_CONTENT: Final = frozenset({"map", "events"})
"""Options whose files say what a row becomes; a table of people may grow."""


@dataclass(frozen=True)
class SourceRecord:
    """One source of a store.

    Attributes:
        reader: What read it.
        kinds: What it gave: events, scores, wearables.
        options: Flag, or table of a vocabulary → what was given, of those that say whom a row is of
            and what it becomes.
        files: Path → (bytes, time of change in ns) of the files that were read whole.
    """

    reader: str
    kinds: frozenset[str] = frozenset()
    options: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, reader: Reader, options: ReaderOptions, site: Site, below: Path) -> Self:
        """Return the record of a site that is about to be read.

        Args:
            reader: What reads it.
            options: The reader's.
            site: What it gave.
            below: The source; files elsewhere, unpacked from it, are not noted.
        """
        given = {EVENTS: site.events is not None or site.stream is not None}
        given |= {
            SCORES: site.scores is not None,
            WEARABLES: bool(site.wearables) or site.wearing is not None,
        }
        kinds = frozenset(kind for kind, there in given.items() if there)
        whole = below.resolve()
        files = {} if site.stream is None else files_of_parts(site.stream)
        own = {path: facts for path, facts in files.items() if Path(path).is_relative_to(whole)}
        beside = dict.fromkeys((f"table {name}" for name in site.vocabularies), "there")
        return cls(reader.name, kinds, {**_said(options), **beside}, own)

    @classmethod
    def all_of(cls, marker: Mapping[str, Any]) -> tuple[Self, ...]:
        """Return those in a store's dataset.json; none in one that an older release wrote."""
        return tuple(
            cls(
                str(said["reader"]),
                frozenset(said["kinds"]),
                dict(said["options"]),
                {path: (int(size), int(ns)) for path, (size, ns) in said["files"].items()},
            )
            for said in marker.get(OWN_KEY, {}).get(SOURCES, ())
        )

    def with_files_of(self, later: Self) -> Self:
        """Return this with the files that an update read."""
        return replace(self, files={**self.files, **later.files}, kinds=self.kinds | later.kinds)

    def differs_in(self, other: Self) -> list[str]:
        """Return the options that the two were read with otherwise."""
        return sorted(
            name
            for name in {*self.options, *other.options}
            if self.options.get(name) != other.options.get(name)
        )


def as_json(records: Iterable[SourceRecord]) -> Sequence[Mapping[str, Any]]:
    """Return records as dataset.json keeps them."""
    return [{**asdict(record), "kinds": sorted(record.kinds)} for record in records]


def files_of_parts(stream: EventStream) -> dict[str, tuple[int, int]]:
    """Return path → (bytes, time of change in ns) of the files that a stream's parts are.

    A table that has a row for each person is read by every update, and not among them.
    """
    files = [part.file for part in stream.parts if part.file and not part.of_everyone]
    return {str(file.resolve()): file_facts(file) for file in files}


def file_facts(file: Path) -> tuple[int, int]:
    """Return a file's size in bytes and its time of change in ns."""
    facts = file.stat()
    return facts.st_size, facts.st_mtime_ns


def _said(options: ReaderOptions) -> dict[str, str]:
    """Return what was given beside the defaults; a path as that there is one, or by its content."""
    said: dict[str, str] = {}
    for name, field_ in type(options).model_fields.items():
        value = getattr(options, name)
        if name in _OF_ONE_READING or value == field_.get_default():
            continue
        flag = f"--{name.replace('_', '-')}"
        if name == "key":
            said[flag] = hashlib.sha256(site_key(value)).hexdigest()[:16]
        elif paths := _paths(value):
            said[flag] = _content(paths) if name in _BY_CONTENT else "given"
        else:
            said[flag] = str(value)
    return said


def _paths(value: object) -> tuple[Path, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(path for path in values if isinstance(path, Path))


def _content(paths: Iterable[Path]) -> str:
    """Return a hash of files' bytes, and of the names and sizes of what is in folders.

    Nothing of a file that is missing; whoever reads it says so.
    """
    told = hashlib.sha256()
    for path in paths:
        if path.is_file():
            told.update(hashlib.sha256(path.read_bytes()).digest())
        for file in sorted(path.glob("*")):
            told.update(f"{file.name} {file.stat().st_size}\n".encode())
    return told.hexdigest()[:16]
