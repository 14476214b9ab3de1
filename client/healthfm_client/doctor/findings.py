"""What ``doctor`` looks at: the machine, the site's own files and data, and the way to the study.

Each look returns `DoctorFinding`s and raises nothing that a person can put right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from healthfm_core.errors import HealthFMError

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class DoctorFinding:
    """One line of the doctor's.

    Attributes:
        name: What was looked at, a word.
        level: Whether it will do.
        seen: What was found.
        do: What to do about it, empty where all is well.
        error: The error behind a failure; its code ends the process.
    """

    name: str
    level: Level
    seen: str
    do: str = ""
    error: HealthFMError | None = None


def passed(name: str, seen: str) -> DoctorFinding:
    """Return a finding that is well."""
    return DoctorFinding(name, "pass", seen)


def failed(name: str, error: HealthFMError) -> DoctorFinding:
    """Return the finding that an error is."""
    seen = f"{error.code}: {error.where}: {error.seen}; {error.wanted}"
    return DoctorFinding(name, "fail", seen, error.do, error)


def findings_of(name: str, look: Callable[[], Iterable[DoctorFinding]]) -> Iterator[DoctorFinding]:
    """Yield what a look finds; an error that it raises is its last finding, under `name`."""
    try:
        yield from look()
    except HealthFMError as error:
        yield failed(name, error)
