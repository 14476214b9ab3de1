"""Expressions of a mapping file as DuckDB's SQL over a table and those that are joined to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader, TableFile, shown_at
from healthfm_client.ingest.tables.mapping_expressions import (
    MICROSECONDS,
    CastTo,
    ColumnOf,
    Comparison,
    Expression,
    FirstOf,
    Literal,
    OnlyIf,
    PartOf,
    Sum,
    Template,
    WrittenAs,
)
from healthfm_core.errors import IngestError

_LIMIT: Final = r"^\s*([<>]=?)\s*[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?\s*$"
_OFFSET: Final = r"\s*(Z|UTC|[+-]\d\d:?(\d\d)?)$"


@dataclass(frozen=True)
class LentColumn:
    """A column that another table lends.

    Attributes:
        sql: As it is there.
        time: Read as a time.
        file: Says what kind of column it is.
    """

    sql: str
    time: str
    file: TableFile


@dataclass(frozen=True)
class MappedColumns:
    """The columns that the expressions of a table may name.

    Attributes:
        file: The table, ``t`` in the query.
        lent: Column → that of a table that is joined.
        made: Column → the expression that it is.
        where: Named in errors.
    """

    file: TableFile
    lent: Mapping[str, LentColumn]
    made: Mapping[str, Expression]
    where: str

    def text(self, of: Expression) -> str:
        """Return as a text, NULL where it is empty."""
        match of:
            case ColumnOf(name) if name in self.made:
                return self._of_made(name).text(self.made[name])
            case ColumnOf(name):
                return as_text(self._column(name), whole=self._file_of(name).is_a(name, "float"))
            case Literal(text):
                return _quoted(text)
            case Template(parts):
                return f"({' || '.join(self.text(part) for part in parts) or 'NULL'})"
            case FirstOf(choices):
                return f"coalesce({', '.join(self.text(one) for one in choices)})"
            case CastTo(inner, kind) if kind in ("str", "string"):
                return self.text(inner)
            case OnlyIf():
                return self._case(of, self.text)
            case PartOf(inner, pattern):
                return f"nullif(regexp_extract({self.text(inner)}, {self._pattern(pattern)}), '')"
            case WrittenAs() | CastTo():
                return f"CAST({self.time(of)} AS VARCHAR)"
            case Sum():
                number = self.number(of)
                whole = f"TRY_CAST({number} AS BIGINT)"
                return (
                    f"CASE WHEN {number} = {whole} THEN {whole}::VARCHAR ELSE {number}::VARCHAR END"
                )

    def id(self, of: Expression) -> str:
        """Return as an id: an integer where the column holds such, else a text."""
        if not isinstance(of, ColumnOf) or of.name in self.made:
            return self.text(of)
        whole = self._file_of(of.name).is_a(of.name, "integer")
        return f"CAST({self._column(of.name)} AS BIGINT)" if whole else self.text(of)

    def number(self, of: Expression) -> str:
        """Return as a number, NULL where it is none."""
        match of:
            case ColumnOf(name) if name in self.made:
                return self._of_made(name).number(self.made[name])
            case ColumnOf(name):
                return f"TRY_CAST({self._column(name)} AS DOUBLE)"
            case FirstOf(choices):
                return f"coalesce({', '.join(self.number(one) for one in choices)})"
            case CastTo(inner, kind) if kind not in MICROSECONDS and kind != "year":
                return self.number(inner)
            case Sum(left, right, "/"):
                return f"({self.number(left)} / nullif({self.number(right)}, 0))"
            case Sum(left, right, sign):
                return f"({self.number(left)} {sign} {self.number(right)})"
            case OnlyIf():
                return self._case(of, self.number)
        return f"TRY_CAST({self.text(of)} AS DOUBLE)"

    def value(self, of: Expression) -> str:
        """Return as the number of an event; that of a limit, ``<5``, is 5 (see `limit`)."""
        if not self._may_be_limit(of):
            return self.number(of)
        bare = f"TRY_CAST(ltrim({self.text(of)}, '<>=') AS DOUBLE)"
        return f"CASE WHEN {self.limit(of)} IS NOT NULL THEN {bare} ELSE {self.number(of)} END"

    def limit(self, of: Expression) -> str:
        """Return ``<``, ``<=``, ``>`` or ``>=`` of a number that is written as a limit, or NULL."""
        if not self._may_be_limit(of):
            return "CAST(NULL AS VARCHAR)"
        return f"nullif(regexp_extract({self.text(of)}, '{_LIMIT}', 1), '')"

    def _may_be_limit(self, of: Expression) -> bool:
        return (
            isinstance(of, ColumnOf) and of.name not in self.made and not self._is_number(of.name)
        )

    def said(self, of: Expression) -> str:
        """Return as SQL whether a row says something there, be it readable or not."""
        match of:
            case ColumnOf(name) if name in self.made:
                return self._of_made(name).said(self.made[name])
            case ColumnOf(name) if self._is_number(name) or self._is_time(name):
                return f"({self._column(name)} IS NOT NULL)"
            case WrittenAs(inner, _) | CastTo(inner, _) | PartOf(inner, _):
                return self.said(inner)
            case Template(parts):
                return f"({' AND '.join(self.said(part) for part in parts) or 'true'})"
            case FirstOf(choices):
                return f"({' OR '.join(self.said(one) for one in choices)})"
            case Sum(left, right, _):
                return f"({self.said(left)} AND {self.said(right)})"
            case OnlyIf():
                return f"coalesce({self._case(of, self.said)}, false)"
        return f"({self.text(of)} IS NOT NULL)"

    def _case(self, of: OnlyIf, form: Callable[[Expression], str]) -> str:
        cases = (" AND ".join(self._compared(one) for one in case) for case in of.cases)
        otherwise = "" if of.otherwise is None else f" ELSE {form(of.otherwise)}"
        return f"CASE WHEN {' OR '.join(cases)} THEN {form(of.found)}{otherwise} END"

    def _compared(self, one: Comparison) -> str:
        sign = "=" if one.sign == "==" else "<>"
        return f"{self.text(one.left)} {sign} {self.text(one.right)}"

    def time(self, of: Expression) -> str:
        """Return as a time on the clock of the site (`local_time`), NULL where it is none."""
        match of:
            case ColumnOf(name) if name in self.made:
                return self._of_made(name).time(self.made[name])
            case ColumnOf(name):
                self._column(name)
                lent = self.lent.get(name)
                return self.file.cast(name, "TIMESTAMP") if lent is None else lent.time
            case WrittenAs(ColumnOf(name), _) if self._is_time(name):
                return self.time(of.of)
            case WrittenAs(inner, form):
                return self._parsed(self.text(inner), form)
            case FirstOf(choices):
                return f"coalesce({', '.join(self.time(one) for one in choices)})"
            case CastTo(inner, "year"):
                return f"TRY(make_date(TRY_CAST({self.number(inner)} AS BIGINT), 1, 1)::TIMESTAMP)"
            case CastTo(inner, kind) if kind not in MICROSECONDS:
                return self.time(inner)
            case OnlyIf():
                return self._case(of, self.time)
            case Sum(left, CastTo(amount, kind), "+" | "-" as sign) if kind in MICROSECONDS:
                us = f"TRY_CAST({self.number(amount)} * {MICROSECONDS[kind]} AS BIGINT)"
                return f"TRY({self.time(left)} {sign} to_microseconds({us}))"
        return f"TRY_CAST({self.text(of)} AS TIMESTAMP)"

    def _parsed(self, text: str, form: str) -> str:
        """Return a text in a form as a time; its offset, where it has one, as `local_time` says."""
        if "%z" not in form:
            return f"try_strptime({text}, {_quoted(form)})"
        if self.file.time_zone is not None:
            return shown_at(f"try_strptime({text}, {_quoted(form)})", self.file.time_zone)
        plain = form.replace("%z", "").rstrip()
        return f"try_strptime(regexp_replace({text}, '{_OFFSET}', ''), {_quoted(plain)})"

    def _pattern(self, pattern: str) -> str:
        """Return a regular expression as SQL.

        Raises:
            IngestError: HF-337 where it is none of RE2's.
        """
        try:
            DuckDBReader().table(f"SELECT regexp_extract('', {_quoted(pattern)})", self.file.path)
        except IngestError as error:
            raise IngestError(
                337,
                where=self.where,
                seen=f"{pattern[:60]!r} is no regular expression",
                wanted="one in RE2's syntax is wanted",
            ) from error
        return _quoted(pattern)

    def _of_made(self, name: str) -> MappedColumns:
        """Return these columns without one that is made, which cannot be made of itself."""
        made = {other: of for other, of in self.made.items() if other != name}
        return MappedColumns(self.file, self.lent, made, self.where)

    def _file_of(self, name: str) -> TableFile:
        return self.lent[name].file if name in self.lent else self.file

    def _is_number(self, name: str) -> bool:
        return self._file_of(name).is_a(name, "number")

    def _is_time(self, name: str) -> bool:
        return name not in self.made and self._file_of(name).is_a(name, "time")

    def _column(self, name: str) -> str:
        if name in self.lent:
            return self.lent[name].sql
        if name not in self.file.columns:
            raise IngestError(
                307,
                where=self.file.path.name,
                seen=f'there is no column "{name}"',
                wanted=f"{self.where} wants it",
                do="Correct the mapping file or the export",
            )
        return self.file.column(name)


def as_text(column: str, *, whole: bool = False) -> str:
    """Return a column as SQL of texts, NULL where it is empty.

    Args:
        column: As SQL.
        whole: Whether it holds floats, of which the whole ones lose their ``.0``: integers of which
            some are absent are written so.
    """
    text = f"CAST({column} AS VARCHAR)"
    return f"nullif(trim({_unpointed(text) if whole else text}), '')"


def _unpointed(text: str) -> str:
    return f"regexp_replace({text}, '\\.0$', '')"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
