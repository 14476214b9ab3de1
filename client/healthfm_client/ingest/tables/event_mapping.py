"""A mapping file in the form of MEDS_extract: which rows of which tables are which events.

Source: MEDS-extract's event configuration ("MESSY" file), https://pypi.org/project/MEDS-extract,
as versions to 0.5 have it (``col(…)``, ``time_format``, ``subject_id_col``, ``join``) and as later
ones do (``$…``, ``_defaults``, ``_table``). Beside MEDS_extract's own keys, ``unit`` is the unit of
``numeric_value``, which the store brings to its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from healthfm_client.ingest.tables.mapping_expressions import (
    ColumnOf,
    Expression,
    columns_in,
    in_forms,
    parse_code,
    parse_value,
)
from healthfm_core.errors import IngestError

_LARGEST: Final = 1 << 20
_MOST: Final = 10_000
"""Tables, and events of one of them."""
_NOT_TABLES: Final = frozenset({"sources", "etl"})
"""What MEDS_extract keeps in the file for itself."""
_VALUES: Final = ("numeric_value", "text_value", "unit")
_SUBJECT: Final = "subject_id"
_REDUCED: Final = ("min", "max")


@dataclass(frozen=True)
class Join:
    """Columns of another table, by keys of which each stands there once.

    Attributes:
        table: The other one.
        left: Columns of the table that is read.
        right: Their counterparts in the other.
        columns: What is wanted of it → how several rows become one: '' where there is but one.
    """

    table: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    columns: Mapping[str, str]


@dataclass(frozen=True)
class MappedEvent:
    """One kind of event of a table's rows.

    Attributes:
        name: As the file has it, with its table.
        code: A row without one gives no such event.
        time: None is a static event; a row without a time gives no such event.
        numeric_value: None where events have no number.
        text_value: Likewise.
        unit: Of the number.
        others: Property → column, of which the store has none: its values are counted.
    """

    name: str
    code: Expression
    time: Expression | None
    numeric_value: Expression | None
    text_value: Expression | None
    unit: Expression | None
    others: Mapping[str, Expression]


@dataclass(frozen=True)
class MappedTable:
    """What the rows of a table are.

    Attributes:
        name: ``hosp/labevents``: the file or folder, without what says how it is written.
        subject: Whose row it is.
        events: The kinds.
        joins: Tables that lend it columns.
        made: Columns that the file defines.
    """

    name: str
    subject: Expression
    events: tuple[MappedEvent, ...]
    joins: tuple[Join, ...]
    made: Mapping[str, Expression]


class _EachOnce(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that stands twice, of which the first would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [str(key.value) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key[:60]!r} stands twice")
        return super().construct_mapping(node, deep)


def read_mapping(file: Path) -> tuple[MappedTable, ...]:
    """Return the tables of a mapping file.

    Raises:
        IngestError: HF-335 where it is no mapping file, HF-336 for an entry that is none, HF-337
            for an expression that is not understood.
    """
    said = _loaded(file)
    tables = [name for name in said if not name.startswith("_") and name not in _NOT_TABLES]
    everywhere = [name for name in tables if not isinstance(said[name], dict)]
    defaults = _entry(said.get("_defaults"), f"{file.name}, _defaults")
    subject = said.get("subject_id_col") or defaults.get(_SUBJECT)
    for name in everywhere:
        if name != "subject_id_col":
            raise _no_entry(f"{file.name}, {name}", "it has no events", "a table with events")
    found = tuple(
        _table(name, said[name], subject, f"{file.name}, {name}")
        for name in tables
        if name not in everywhere
    )
    if not found:
        raise _no_file(file, "it names no table")
    return found


def _loaded(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise _no_file(file, f"it is larger than {_LARGEST:,} bytes")
        said = yaml.load(text, _EachOnce)
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)
        line = f" in line {at.line + 1}" if at is not None else ""
        raise _no_file(
            file, f"{getattr(error, 'problem', None) or 'it is no YAML'}{line}"
        ) from error
    except (OSError, UnicodeError, RecursionError, ValueError) as error:
        raise _no_file(file, "it cannot be read") from error
    if not isinstance(said, dict) or not said or len(said) > _MOST:
        raise _no_file(file, "it is no list of tables")
    return {str(name): entry for name, entry in said.items()}


def _table(name: str, said: dict[Any, Any], subject: object, where: str) -> MappedTable:
    entry = {str(key): value for key, value in said.items()}
    own = _entry(entry.pop("_defaults", None), f"{where}, _defaults")
    about = _entry(entry.pop("_table", None), f"{where}, _table")
    unknown = sorted({*own} - {_SUBJECT}) + sorted({*about} - {"join", "cols"})
    if unknown:
        raise _no_entry(where, f"{unknown[0]!r} is not known", "subject_id, join or cols")
    subject = entry.pop("subject_id_col", None) or own.get(_SUBJECT) or subject or _SUBJECT
    classic = entry.pop("join", None)
    joins = tuple(_joins(classic, about.get("join"), f"{where}, join"))
    made = _entry(about.get("cols"), f"{where}, cols")
    events = tuple(_event(key, value, f"{where}/{key}") for key, value in entry.items())
    if not events or len(events) > _MOST:
        raise _no_entry(where, "it has no events", "an event of a name, with code and time")
    return MappedTable(
        name,
        parse_value(subject, where),
        events,
        joins,
        {key.lower(): parse_value(value, f"{where}, {key}") for key, value in made.items()},
    )


def _event(name: str, said: object, where: str) -> MappedEvent:
    if not isinstance(said, dict):
        raise _no_entry(where, "it is no event", "code and time")
    entry = {str(key): value for key, value in said.items() if not str(key).startswith("_")}
    missing = [key for key in ("code", "time") if key not in entry]
    if missing:
        raise _no_entry(where, f"there is no {missing[0]}", "code and time (null where static)")
    code = parse_code(entry.pop("code"), f"{where}, code")
    time = _time(entry.pop("time"), entry.pop("time_format", None), f"{where}, time")
    values = {key: _optional(entry.pop(key, None), f"{where}, {key}") for key in _VALUES}
    others = {key: parse_value(value, f"{where}, {key}") for key, value in entry.items()}
    return MappedEvent(name, code, time, **values, others=others)


def _time(said: object, forms: object, where: str) -> Expression | None:
    if said is None:
        return None
    of = parse_value(said, where)
    if not list(columns_in(of)):
        raise _no_entry(where, f"{str(said)[:60]!r} is no column", "col(COLUMN), or null")
    return of if forms is None else in_forms(of, forms, where)


def _optional(said: object, where: str) -> Expression | None:
    return None if said is None else parse_value(said, where)


def _joins(classic: object, later: object, where: str) -> Iterator[Join]:
    for one in classic if isinstance(classic, list) else [classic]:
        entry = _entry(one, where)
        if entry:
            table = str(entry.get("input_prefix", ""))
            yield _join(table, entry, entry.get("columns_from_right"), where)
    for name, one in _entry(later, where).items():
        entry = _entry(one, where)
        yield _join(name, entry, entry.get("cols"), where)


def _join(table: str, entry: Mapping[str, Any], wanted: object, where: str) -> Join:
    left = _names(entry.get("left_on", entry.get("key")), where)
    right = _names(entry.get("right_on", entry.get("key")), where)
    reduced = wanted if isinstance(wanted, dict) else dict.fromkeys(_names(wanted, where), "")
    columns = {str(name).lower(): str(how) for name, how in reduced.items()}
    odd = [how for how in columns.values() if how and how not in _REDUCED]
    if not table or not columns or len(left) != len(right) or odd:
        wanted_are = "input_prefix, left_on, right_on and columns_from_right (or min, max of them)"
        raise _no_entry(where, "a table cannot be joined so", wanted_are)
    return Join(table, left, right, columns)


def _names(said: object, where: str) -> tuple[str, ...]:
    several = said if isinstance(said, list) else [said]
    found = [parse_value(one, where) for one in several if one is not None]
    if not found or not all(isinstance(one, ColumnOf) for one in found):
        raise _no_entry(where, "a column is no column's name", "the names of columns")
    return tuple(one.name for one in found if isinstance(one, ColumnOf))


def _entry(said: object, where: str) -> dict[str, Any]:
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise _no_entry(where, "there are no names with values", "NAME: VALUE")
    return {str(key): value for key, value in said.items()}


def _no_file(file: Path, seen: str) -> IngestError:
    return IngestError(
        335,
        where=file.name,
        seen=seen,
        wanted="YAML in the form of MEDS-extract is wanted: tables, and events in them",
    )


def _no_entry(where: str, seen: str, wanted: str) -> IngestError:
    return IngestError(336, where=where, seen=seen, wanted=f"{wanted} is wanted")
