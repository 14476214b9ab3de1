"""More events than fit in memory, on their way into a store: by subject, on disk beyond a budget.

Subjects fall into 1,024 cells by a hash of their id. Rows wait in memory, sorted by cell, up to a
budget; then they go to files of some cells each, as Arrow streams one behind the other. At the end
cells are put together into groups of about a million events; a group holds every event of its
subjects, so that it can be cleaned, sorted and written by itself. Which group a subject is in
depends on its id and on the power of two of groups, so that a corrected source changes the files of
the people it corrects.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from healthfm_core.arrays import Int32, Int64
from healthfm_core.data.store.event_stream import RejectedRows
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.schemas import EVENTS
from healthfm_core.data.store.splits import mix
from healthfm_core.errors import IngestError

CELL_BITS: Final = 10
ROWS_IN_MEMORY: Final = 4_000_000
BYTES_IN_MEMORY: Final = 256 * 1024**2
EVENTS_PER_GROUP: Final = 1_000_000
BYTES_PER_GROUP: Final = 128 * 1024**2
CODES_AT_MOST: Final = 2_000_000
CODE_CHARACTERS_AT_MOST: Final = 128 * 1024**2
"""More distinct codes are no vocabulary; they are texts or identifiers in the column of codes."""
FILES_PER_GROUP: Final = 4
"""Files are finer than the groups expected, since a source's rows are known about."""
LEAST_FREE_BYTES: Final = 512 * 1024**2
_SALT: Final = np.uint64(0x5BD1E9955BD1E995)
_JOURNAL: Final = "journal.json"
_SUFFIX: Final = ".arrows"
_REJECTED: Final = "rejected-"


def cell_of(subject: Int64) -> npt.NDArray[np.uint16]:
    """Return the cell of each subject, 0 to 1023; the same everywhere and always."""
    hashed = mix(subject.view(np.uint64) ^ _SALT) >> np.uint64(64 - CELL_BITS)
    return hashed.astype(np.uint16)


class CodeNumbers:
    """Every code seen, numbered as they came."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = list(names)
        self._at = {name: at for at, name in enumerate(self.names)}
        self._characters = sum(map(len, self.names))

    def numbers(self, column: pa.ChunkedArray, where: str) -> Int32:
        """Return each row's code as a number, new codes added; -1 where it is null.

        Raises:
            IngestError: HF-309 where there are more than `CODES_AT_MOST`, or they are too long.
        """
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        parts = [self._chunk(chunk, where) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def _chunk(self, chunk: pa.DictionaryArray, where: str) -> Int32:
        names = chunk.dictionary.to_pylist()
        for name in names:
            if name is not None and name not in self._at:
                self._at[name] = len(self.names)
                self.names.append(name)
                self._characters += len(name)
        numbers = np.array([-1 if name is None else self._at[name] for name in names] + [-1])
        if len(self.names) > CODES_AT_MOST or self._characters > CODE_CHARACTERS_AT_MOST:
            raise IngestError(
                309,
                where=where,
                seen=f"there are more than {CODES_AT_MOST:,} distinct codes, or they are too long",
            )
        index = chunk.indices if not chunk.null_count else chunk.indices.fill_null(len(names))
        return np.asarray(numbers.astype(np.int32)[index.to_numpy(zero_copy_only=False)])


@dataclass(frozen=True)
class RowsByCell:
    """Rows by cell, those of cell n from ``ends[n - 1]`` to ``ends[n]``."""

    rows: pa.Table
    ends: Int64

    def of(self, cells: range) -> pa.Table:
        """Return the rows of some cells."""
        start = int(self.ends[cells.start - 1]) if cells.start else 0
        return self.rows.slice(start, int(self.ends[cells.stop - 1]) - start)


def by_cell(table: pa.Table) -> RowsByCell:
    """Return a table's rows by cell; those of a cell keep their order."""
    cell = cell_of(ids(table))
    ends = np.cumsum(np.bincount(cell, minlength=1 << CELL_BITS))
    return RowsByCell(table.take(pa.array(np.argsort(cell, kind="stable"))), ends)


def named(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return rows with their codes as a dictionary of those that occur, in place of numbers.

    Args:
        table: Its codes are numbers, negative where there is none.
        names: What the numbers stand for.
    """
    code = np.asarray(table["code"].to_numpy(), np.int64)
    used = np.flatnonzero(np.bincount(code + 1, minlength=1)[1:])
    number = np.zeros(len(names) + 1, np.int32)
    number[used] = np.arange(len(used), dtype=np.int32)
    coded = pa.DictionaryArray.from_arrays(
        pa.array(number[code], mask=code < 0 if code.min(initial=0) < 0 else None),
        pa.array([names[at] for at in used.tolist()], pa.string()),
    )
    return table.set_column(table.column_names.index("code"), "code", coded)


class EventSpool:
    """Events by cell of their subject, in memory while they are few.

    Args:
        folder: Where files go once the budget is used up; it need not exist.
        where: Named in errors.
        resume: Go on from the last `commit` of a spool that was there; without it, begin empty.
        expected: How many events will come, about; it says how many files there are.

    Attributes:
        has_text: Whether an event has a text.
        book: The codes.
        texts: Code → what it means, where the source says so.
        not_read: Kind → how much of it the source holds that is not read.
        source_codes: (code, code of the source that it stands for) → rows.
        done: The parts of the source that were committed.
    """

    def __init__(
        self, folder: Path, where: str, *, resume: bool = False, expected: int = 0
    ) -> None:
        self._folder = folder
        self._where = where
        self._waiting: list[RowsByCell] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._bytes = 0
        self._file_bits = _bits(expected * FILES_PER_GROUP, EVENTS_PER_GROUP)
        self._rejected: list[RejectedRows] = []
        self._rejected_rows = 0
        self._rows = np.zeros(1 << CELL_BITS, np.int64)
        self.done: set[str] = set()
        self.has_text = False
        self.book = CodeNumbers()
        self.texts: dict[str, str] = {}
        self.not_read: Counter[str] = Counter()
        self.source_codes: Counter[tuple[str, str]] = Counter()
        journal = read_journal(folder, resume=resume)
        if journal is not None:
            self._take_up(journal)

    @property
    def rows(self) -> int:
        """How many events there are."""
        return int(self._rows.sum())

    def add(self, table: pa.Table) -> None:
        """Add events: subject_id, time, code, numeric_value and, where there is any, text_value.

        Raises:
            IngestError: HF-309, HF-311 where the disk is nearly full.
        """
        if not table.num_rows:
            return
        columns = {
            "subject_id": table["subject_id"],
            "time": table["time"],
            "code": pa.array(self.book.numbers(table["code"], self._where)),
            "numeric_value": table["numeric_value"],
        }
        if "text_value" in table.column_names and table["text_value"].null_count < table.num_rows:
            columns["text_value"] = table["text_value"].cast(pa.large_string())
            self.has_text = True
        by_subject = by_cell(pa.table(columns))
        self._rows += np.diff(by_subject.ends, prepend=0)
        self._bytes += by_subject.rows.nbytes
        self._waiting.append(by_subject)
        self._waiting_rows += table.num_rows
        self._waiting_bytes += by_subject.rows.nbytes
        if self._waiting_rows >= ROWS_IN_MEMORY or self._waiting_bytes >= BYTES_IN_MEMORY:
            self._flush()

    def reject(self, rejected: RejectedRows) -> None:
        """Keep raw rows that give no event."""
        self._rejected.append(rejected)
        self._rejected_rows += rejected.rows.num_rows
        if self._rejected_rows >= ROWS_IN_MEMORY // 8:
            self._flush_rejected()

    def name_codes(self, texts: Mapping[str, str]) -> None:
        """Keep what codes mean; a code keeps the first text it was given."""
        self.texts = {code: text for code, text in texts.items() if text} | self.texts

    def rejected(self) -> Iterator[RejectedRows]:
        """Yield the raw rows that gave no event, by reason, in the order it came."""
        self._flush_rejected()
        for file in sorted(self._folder.glob(f"{_REJECTED}*{_SUFFIX}")):
            for rows in read_rows(file):
                yield RejectedRows(file.stem.removeprefix(_REJECTED), rows)

    def commit(self, part: str) -> None:
        """Put everything on disk and note that `part` is whole: a later `resume` skips it."""
        self._flush()
        self._flush_rejected()
        self.done.add(part)
        facts = {
            "done": sorted(self.done),
            "codes": self.book.names,
            "texts": self.texts,
            "not_read": self.not_read,
            "source_codes": [[*pair, rows] for pair, rows in self.source_codes.items()],
            "rows": self._rows.tolist(),
            "bytes": self._bytes,
            "file_bits": self._file_bits,
            "has_text": self.has_text,
        }
        write_journal(self._folder, facts)

    def groups(self) -> list[range]:
        """Return ranges of cells, a power of two of them, of about so many events each."""
        bits = max(_bits(self.rows, EVENTS_PER_GROUP), _bits(self._bytes, BYTES_PER_GROUP))
        width = 1 << (CELL_BITS - bits)
        return [range(start, start + width) for start in range(0, 1 << CELL_BITS, width)]

    def take(self, cells: range) -> pa.Table:
        """Return the events of a group, in the order they came, codes as a dictionary."""
        tables = []
        for file, its_cells in self._files(cells):
            whole = cells.start <= its_cells.start and its_cells.stop <= cells.stop
            tables += [rows if whole else by_cell(rows).of(cells) for rows in read_rows(file)]
        tables += [waiting.of(cells) for waiting in self._waiting]
        if not tables:
            return EVENTS.empty_table().drop_columns(["text_value"])
        table = pa.concat_tables(tables, promote_options="default").combine_chunks()
        return named(table, self.book.names)

    def remove(self) -> None:
        """Remove what is on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _files(self, cells: range) -> list[tuple[Path, range]]:
        """Return the files with some of the cells, and which cells each has."""
        width = 1 << (CELL_BITS - self._file_bits)
        first, last = cells.start // width, (cells.stop - 1) // width
        return [
            (self._folder / f"{n}{_SUFFIX}", range(n * width, (n + 1) * width))
            for n in range(first, last + 1)
        ]

    def _flush(self) -> None:
        if not self._waiting:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        refuse_full_disk(self._folder, self._where)
        for path, cells in self._files(range(1 << CELL_BITS)):
            tables = [rows for waiting in self._waiting if (rows := waiting.of(cells)).num_rows]
            if tables:
                append_rows(path, pa.concat_tables(tables, promote_options="default"))
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def _flush_rejected(self) -> None:
        if self._rejected:
            self._folder.mkdir(parents=True, exist_ok=True)
            refuse_full_disk(self._folder, self._where)
        for rejected in self._rejected:
            append_rows(self._folder / f"{_REJECTED}{rejected.reason}{_SUFFIX}", rejected.rows)
        self._rejected, self._rejected_rows = [], 0

    def _take_up(self, journal_facts: dict[str, Any]) -> None:
        self.done = set(journal_facts["done"])
        self._rows = np.array(journal_facts["rows"], np.int64)
        self._bytes, self._file_bits = int(journal_facts["bytes"]), int(journal_facts["file_bits"])
        self.has_text = bool(journal_facts["has_text"])
        self.book = CodeNumbers(journal_facts["codes"])
        self.texts = dict(journal_facts["texts"])
        self.not_read = Counter(journal_facts["not_read"])
        mapped = journal_facts["source_codes"]
        self.source_codes = Counter({(code, source): rows for code, source, rows in mapped})


def _bits(amount: int, each: int) -> int:
    """Return the bits of the least power of two of pieces that are no larger than `each`."""
    bits = 0
    while bits < CELL_BITS and amount > each << bits:
        bits += 1
    return bits


def write_journal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note, at once or not at all, what a folder's files hold up to their present ends."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {file.stem: file.stat().st_size for file in folder.glob(f"*{_SUFFIX}")}
    draft = folder / f"{_JOURNAL}.new"
    draft.write_text(json.dumps({**facts, "sizes": sizes}), encoding="utf-8")
    draft.replace(folder / _JOURNAL)


def read_journal(folder: Path, *, resume: bool) -> dict[str, Any] | None:
    """Return what was noted last, the files cut to what they held then.

    The folder goes, and there is none, unless it is to `resume`, and where a machine that went off
    kept less than was noted.
    """
    journal = folder / _JOURNAL
    journal_facts = _json(journal) if resume and journal.is_file() else None
    if journal_facts is not None and all(
        _size(folder / f"{stem}{_SUFFIX}") >= size for stem, size in journal_facts["sizes"].items()
    ):
        for file in folder.glob(f"*{_SUFFIX}"):
            with file.open("r+b") as whole:
                whole.truncate(journal_facts["sizes"].get(file.stem, 0))
        return journal_facts
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _json(file: Path) -> dict[str, Any] | None:
    """Return a journal, None where it was cut off."""
    try:
        journal_facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return journal_facts


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def append_rows(path: Path, table: pa.Table) -> None:
    """Write a table behind what a file holds already."""
    with path.open("ab") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def read_rows(path: Path) -> Iterator[pa.Table]:
    """Yield the tables of a file in the order they were appended; none where there is no file."""
    if not path.is_file():
        return
    size = path.stat().st_size
    with pa.OSFile(str(path)) as file:
        while file.tell() < size:
            yield pa.ipc.open_stream(file).read_all()


def refuse_full_disk(folder: Path, where: str) -> None:
    """Raise HF-311 where less than `LEAST_FREE_BYTES` are free."""
    if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
        raise IngestError(
            311, where=where, seen=f"less than {LEAST_FREE_BYTES // 1024**2} MB of disk are free"
        )
