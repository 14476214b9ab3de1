"""Expressions of a mapping file: which column, text or sum an event's code, time or value is.

Both forms that MEDS_extract has had are read: ``col(itemid)`` of its versions to 0.5, and the part
of dftly that event files of 0.6 and later are made of: ``$itemid``, ``f"LAB//{$itemid}"``,
``$a ?? 'UNK'``, ``coalesce(…)``, ``$t::"%Y-%m-%d"`` or ``$t as "%Y-%m-%d"``, ``$a + $b``,
``$start + $offset::minutes``, ``$year::year``, ``HR if $hr == $hr``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from healthfm_core.errors import IngestError

MICROSECONDS: Final = {
    "milliseconds": 1_000,
    "seconds": 1_000_000,
    "minutes": 60_000_000,
    "hours": 3_600_000_000,
    "days": 86_400_000_000,
    "weeks": 604_800_000_000,
}
"""What a number can be a duration in → µs of one."""
_KINDS: Final = frozenset(
    {"year", "str", "string", "int", "int64", "float", "float64", "datetime", "date"}
)
"""Casts that are read: a year is its first of January; the others say what a column is anyway."""
_COL: Final = re.compile(r"col\((?P<name>[^()]+)\)")
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<column>\$(?:\w+|`[^`]+`))"
    r"|(?P<template>f(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"))"
    r"|(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>::\??|\?\?|[=!]=|[-+*/(),]))",
    re.ASCII,
)
_HOLE: Final = re.compile(r"\{([^{}]*)\}")
_LONGEST: Final = 2000
_DEEPEST: Final = 40


@dataclass(frozen=True)
class ColumnOf:
    """A column of the table, or of one that is joined to it."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A text or a number as it stands in the file."""

    text: str


@dataclass(frozen=True)
class Template:
    """Texts one behind the other; nothing where one of them is nothing."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class FirstOf:
    """The first that is there."""

    choices: tuple[Expression, ...]


@dataclass(frozen=True)
class WrittenAs:
    """A time that is written in a form: ``%d/%m/%Y``."""

    of: Expression
    form: str


@dataclass(frozen=True)
class CastTo:
    """A year as a date, a number as a duration, or what a column is anyway."""

    of: Expression
    kind: str


@dataclass(frozen=True)
class Sum:
    """Two numbers with ``+``, ``-``, ``*`` or ``/``, or a time and a duration."""

    left: Expression
    right: Expression
    sign: str


@dataclass(frozen=True)
class Comparison:
    """Whether two texts are the same (``==``), or are not; neither where one is nothing."""

    left: Expression
    right: Expression
    sign: str


@dataclass(frozen=True)
class OnlyIf:
    """One of two, by a condition.

    Attributes:
        found: Where it holds.
        cases: The condition: one of them, of each of which everything.
        otherwise: Where it does not; None is nothing.
    """

    found: Expression
    cases: tuple[tuple[Comparison, ...], ...]
    otherwise: Expression | None


@dataclass(frozen=True)
class PartOf:
    """What of a text a regular expression matches; nothing where it does not."""

    of: Expression
    pattern: str


Expression: TypeAlias = (
    ColumnOf | Literal | Template | FirstOf | WrittenAs | CastTo | Sum | OnlyIf | PartOf
)


def columns_in(expression: Expression) -> Iterator[str]:
    """Yield the columns that an expression needs."""
    match expression:
        case ColumnOf(name):
            yield name
        case Template(parts) | FirstOf(parts):
            for part in parts:
                yield from columns_in(part)
        case WrittenAs(of, _) | CastTo(of, _) | PartOf(of, _):
            yield from columns_in(of)
        case Sum(left, right, _):
            yield from columns_in(left)
            yield from columns_in(right)
        case OnlyIf(found, cases, otherwise):
            compared = [side for case in cases for one in case for side in (one.left, one.right)]
            for part in (found, *compared, *([] if otherwise is None else [otherwise])):
                yield from columns_in(part)


def parse_code(said: object, where: str) -> Expression:
    """Return a code: a text, a ``col(…)``, an expression, or a list of them.

    As in MEDS_extract to 0.5, a row of which the first of a list is empty gives no event, and what
    is empty behind it is ``UNK``.

    Raises:
        IngestError: HF-337.
    """
    if not isinstance(said, list):
        return _value(said, where, bare_is_column=False)
    parts: list[Expression] = []
    for number, one in enumerate(said):
        part = _value(one, where, bare_is_column=False)
        if number and isinstance(part, ColumnOf):
            part = FirstOf((part, Literal("UNK")))
        parts += [Literal("//"), part] if number else [part]
    if not parts:
        raise _not_understood("", where)
    return Template(tuple(parts))


def parse_value(said: object, where: str) -> Expression:
    """Return what is not a code: a bare word is a column, as in MEDS_extract.

    Raises:
        IngestError: HF-337.
    """
    return _value(said, where, bare_is_column=True)


def in_forms(of: Expression, forms: object, where: str) -> Expression:
    """Return a time that is written in one of the forms of ``time_format``.

    Raises:
        IngestError: HF-337.
    """
    several = forms if isinstance(forms, list) else [forms]
    texts = [form for form in several if isinstance(form, str)]
    if not texts or len(texts) < len(several):
        raise _not_understood(str(forms), where)
    choices = tuple(WrittenAs(of, _checked(form, where)) for form in texts)
    return choices[0] if len(choices) == 1 else FirstOf(choices)


def _value(said: object, where: str, *, bare_is_column: bool) -> Expression:
    if isinstance(said, bool) or not isinstance(said, str | int | float):
        raise _not_understood(str(said), where)
    text = str(said).strip()
    classic = _COL.fullmatch(text)
    if classic:
        return ColumnOf(classic["name"].strip().lower())
    if "$" in text or text[:2] in ('f"', "f'") or text[:1] in ("'", '"'):
        return _Parser(text, where).whole()
    if not text or text.startswith("col("):
        raise _not_understood(text, where)
    return ColumnOf(text.lower()) if bare_is_column else Literal(text)


class _Parser:
    """A recursive descent over the tokens of one expression.

    Args:
        text: The expression.
        where: Named in errors.
        depth: How many expressions this one lies in.
    """

    def __init__(self, text: str, where: str, depth: int = 0) -> None:
        if len(text) > _LONGEST or depth > _DEEPEST:
            raise _not_understood(text, where)
        self._text, self._where, self._depth = text, where, depth
        self._tokens = list(self._split())
        self._at = 0

    def _split(self) -> Iterator[tuple[str, str]]:
        at, end = 0, len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                raise _not_understood(self._text, self._where)
            yield match.lastgroup, match[match.lastgroup]
            at = match.end()

    def whole(self) -> Expression:
        """Return the expression, of which nothing may be left over."""
        found = self._cast()
        if self._at < len(self._tokens):
            raise _not_understood(self._text, self._where)
        return found

    def _next(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _taken(self, *texts: str) -> str | None:
        """Return the next token and go on, None where it is none of these signs or words."""
        kind, text = self._next()
        if kind in ("sign", "name") and text in texts:
            self._at += 1
            return text
        return None

    def _cast(self) -> Expression:
        self._deeper()
        found = self._conditional()
        while self._taken("as", "AS"):
            found = self._as(found)
        self._depth -= 1
        return found

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _not_understood(self._text, self._where)

    def _conditional(self) -> Expression:
        found = self._choice()
        if not self._taken("if"):
            return found
        cases = [self._all_of()]
        while self._taken("or"):
            cases.append(self._all_of())
        otherwise = self._cast() if self._taken("else") else None
        return OnlyIf(found, tuple(cases), otherwise)

    def _all_of(self) -> tuple[Comparison, ...]:
        every = [self._comparison()]
        while self._taken("and"):
            every.append(self._comparison())
        return tuple(every)

    def _comparison(self) -> Comparison:
        left = self._sum()
        sign = self._taken("==", "!=")
        if sign is None:
            raise _not_understood(self._text, self._where)
        return Comparison(left, self._sum(), sign)

    def _choice(self) -> Expression:
        choices = [self._sum()]
        while self._taken("??"):
            choices.append(self._sum())
        return choices[0] if len(choices) == 1 else FirstOf(tuple(choices))

    def _sum(self) -> Expression:
        found = self._product()
        while sign := self._taken("+", "-"):
            found = Sum(found, self._product(), sign)
        return found

    def _product(self) -> Expression:
        found = self._local_cast()
        while sign := self._taken("*", "/"):
            found = Sum(found, self._local_cast(), sign)
        return found

    def _local_cast(self) -> Expression:
        found = self._primary()
        while self._taken("::", "::?"):
            found = self._as(found)
        return found

    def _as(self, of: Expression) -> Expression:
        kind, text = self._next()
        self._at += 1
        if kind == "text":
            return WrittenAs(of, _checked(_unquoted(text), self._where))
        if kind == "name" and (text in MICROSECONDS or text in _KINDS):
            return CastTo(of, text)
        raise _not_understood(self._text, self._where)

    def _primary(self) -> Expression:
        kind, text = self._next()
        self._at += 1
        if kind == "column":
            return ColumnOf(text[1:].strip("`").lower())
        if kind in ("text", "number"):
            return Literal(_unquoted(text) if kind == "text" else text)
        if kind == "template":
            return self._template(_unquoted(text[1:]))
        if kind == "name" and self._taken("("):
            return self._call(text)
        if kind == "name":
            return Literal(text)
        if text == "-":
            self._deeper()
            return Sum(Literal("0"), self._local_cast(), "-")
        if text == "(":
            found = self._cast()
            if self._taken(")"):
                return found
        raise _not_understood(self._text, self._where)

    def _call(self, name: str) -> Expression:
        given = [self._cast()]
        while self._taken(","):
            given.append(self._cast())
        if not self._taken(")") or name not in ("coalesce", "hash", "regex_extract"):
            raise _not_understood(self._text, self._where)
        if name == "regex_extract":
            if len(given) == 2 and isinstance(given[0], Literal):
                return PartOf(given[1], given[0].text)
            raise _not_understood(self._text, self._where)
        if name == "hash" and len(given) == 1:
            return given[0]  # ids become subject_ids here, whatever they are
        return FirstOf(tuple(given))

    def _template(self, text: str) -> Expression:
        parts: list[Expression] = []
        for number, piece in enumerate(_HOLE.split(text)):
            if number % 2:
                parts.append(_Parser(piece, self._where, self._depth + 1).whole())
            elif piece:
                parts.append(Literal(piece))
        return Template(tuple(parts))


def _unquoted(text: str) -> str:
    return re.sub(r"\\([\\'\"])", r"\1", text[1:-1])


def _checked(form: str, where: str) -> str:
    if "%" not in form or "%Z" in form:
        raise IngestError(
            337,
            where=where,
            seen=f"{form[:60]!r} is no form of a time",
            wanted="a form such as %Y-%m-%d %H:%M:%S is wanted; a zone is %z or --time-zone",
        )
    return form


def _not_understood(text: str, where: str) -> IngestError:
    return IngestError(
        337,
        where=where,
        seen=f"{text[:80]!r} is not understood",
        wanted="a text, col(COLUMN), $COLUMN or a sum, a choice or a template of them is wanted",
    )
