"""A site's ledger of privacy: what its people's data have cost in all studies of its life.

ε belongs to a site's data, not to a run. The ledger is a file of JSON lines that is only ever
added to; each line holds the hash of the line before it, so that a line that was changed, moved or
taken out from between others is found. Before a round draws anything its whole cost is *reserved*
and on disk; *spend* says afterwards how many of the reserved steps were taken; *commit* that the
update left. What was reserved counts in full until a spend says less, whatever dies when: a crash
can only over-count. Refusals are made by `reserve`, under the lock under which it writes.

What it can't do: somebody who may write to the file can cut lines off its end, or write all of it
anew, and the hashes will agree. Keep a copy, or the last hash, where they may not write.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from healthfm_core.errors import PrivacyError
from healthfm_core.privacy.accounting import Mechanism, within_epsilon

Event = Literal["reserve", "spend", "commit", "unprotected"]

FIRST: Final = "0" * 64
"""What stands for the hash before the first line."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class LedgerEntry:
    """One line.

    Attributes:
        number: Its place, from 0.
        event: ``reserve`` before a round, ``spend`` after it, ``commit`` when its update leaves;
            ``unprotected`` for a study that trains here without noise.
        time: When, in seconds since 1970.
        study: The run's id.
        name: The run's name.
        round: The round; 0 for ``unprotected``.
        mechanism: Noise, sampling rate and steps: reserved, or taken.
        reserve: Number of the reservation that a spend or commit belongs to; else its own.
        hash: SHA-256 of the line before and of this one.
        signed_study: The study that signed the run's contract, by name and key; empty in a
            simulation, and in lines of releases before 0.5.
    """

    number: int
    event: Event
    time: float
    study: str
    name: str
    round: int
    mechanism: Mechanism
    reserve: int
    hash: str
    signed_study: str = ""

    def body(self) -> dict[str, Any]:
        """Return what the hash is over, besides the hash before."""
        return {
            "number": self.number,
            "event": self.event,
            "time": self.time,
            "study": self.study,
            "name": self.name,
            "round": self.round,
            "noise_multiplier": self.mechanism.noise_multiplier,
            "sample_rate": self.mechanism.sample_rate,
            "steps": self.mechanism.steps,
            "reserve": self.reserve,
            **({"signed_study": self.signed_study} if self.signed_study else {}),
            **({"discrete": True} if self.mechanism.discrete else {}),
        }


@dataclass(frozen=True)
class PrivacyLimits:
    """What a site permits.

    Attributes:
        delta: δ at which ε is counted.
        epsilon: Most that one run may cost; None: no limit of its own.
        epsilon_max: Most that all studies together may cost; None: no limit.
        epsilon_of_study: Most that all runs of one study may cost; None: no limit.
    """

    delta: float
    epsilon: float | None = None
    epsilon_max: float | None = None
    epsilon_of_study: float | None = None


class Ledger:
    """The ledger in a file; made with its first line.

    Args:
        path: The file; its folder exists.
        clock: Seconds since 1970.
    """

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        self.path = path
        self._clock = clock

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return the lines, checked one by one; a last line that was never finished is not one.

        Raises:
            PrivacyError: A line is not what it was (HF-602), or cannot be read (HF-603).
        """
        if not self.path.exists():
            return ()
        with self._failing_well():
            return parse_ledger(self.path.read_bytes(), self.path)

    def count(self, event: Event) -> int:
        """Return how many lines of a kind there are, without checking any of them.

        Raises:
            PrivacyError: The file cannot be read (HF-603).
        """
        if not self.path.exists():
            return 0
        with self._failing_well():
            written = json.dumps({"event": event})[1:-1].encode()  # no text has its quotes in it
            return self.path.read_bytes().count(written)

    def reserve(
        self,
        study: str,
        name: str,
        round_: int,
        mechanism: Mechanism,
        limits: PrivacyLimits,
        signed_study: str = "",
    ) -> int:
        """Write down a round's cost before it is incurred; return the reservation's number.

        Raises:
            PrivacyError: The site's limits would be exceeded (HF-601), and nothing is written; or
                the ledger is damaged or cannot be written (HF-602, HF-603).
        """
        with self._locked() as (file, entries):
            check_limits(entries, study, mechanism, limits, signed_study)
            given = study, name, round_, mechanism
            return self._append(file, entries, "reserve", *given, signed_study=signed_study).number

    def spend(self, reserve: int, steps: int) -> None:
        """Write down how many steps of a reservation were taken; the others are free again.

        Raises:
            PrivacyError: As `reserve`; also for a number that is no open reservation (HF-602).
        """
        self._close("spend", reserve, steps)

    def commit(self, reserve: int) -> None:
        """Write down that the update of a reservation is about to leave.

        Raises:
            PrivacyError: As `spend`.
        """
        self._close("commit", reserve, None)

    def note_unprotected(self, study: str, name: str, signed_study: str = "") -> None:
        """Write down, once, that a study trains here without differential privacy."""
        with self._locked() as (file, entries):
            if not any(e.event == "unprotected" and e.study == study for e in entries):
                nothing = Mechanism(0.0, 1.0, 0)
                given = study, name, 0, nothing
                self._append(file, entries, "unprotected", *given, signed_study=signed_study)

    def _close(self, event: Event, reserve: int, steps: int | None) -> None:
        with self._locked() as (file, entries):
            of_reservation = [e for e in entries if e.reserve == reserve]
            if (
                not of_reservation
                or of_reservation[0].event != "reserve"
                or event in {e.event for e in of_reservation}
            ):
                raise damaged_ledger(self.path, f"a {event} of no open reservation")
            opened = of_reservation[0]
            reserved = opened.mechanism
            taken = reserved.steps if steps is None else steps
            if not 0 <= taken <= reserved.steps:
                raise damaged_ledger(self.path, "more steps spent than were reserved")
            mechanism = replace(reserved, steps=taken)
            given = opened.study, opened.name, opened.round, mechanism
            whose = opened.signed_study
            self._append(file, entries, event, *given, reserve=reserve, signed_study=whose)

    def _append(
        self,
        file: int,
        entries: Sequence[LedgerEntry],
        event: Event,
        study: str,
        name: str,
        round_: int,
        mechanism: Mechanism,
        reserve: int | None = None,
        signed_study: str = "",
    ) -> LedgerEntry:
        """Write one line and wait until it is on the disk."""
        number = len(entries)
        before = entries[-1].hash if entries else FIRST
        its = number if reserve is None else reserve
        now = round(self._clock(), 3)
        entry = LedgerEntry(
            number, event, now, study, name, round_, mechanism, its, "", signed_study
        )
        line = {**entry.body(), "hash": _hash(before, entry.body())}
        written = json.dumps(line, sort_keys=True).encode() + b"\n"
        if os.write(file, written) < len(written):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
        return entry

    @contextmanager
    def _locked(self) -> Iterator[tuple[int, tuple[LedgerEntry, ...]]]:
        """Hold the file alone, its unfinished end cut off, and give out what it says."""
        with self._failing_well():
            is_new = not self.path.exists()
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                data = self.path.read_bytes()
                whole = data.rfind(b"\n") + 1
                if whole < len(data):
                    os.ftruncate(file, whole)
                if is_new:
                    _sync_folder(self.path.parent)
                yield file, parse_ledger(data[:whole], self.path)
            finally:
                os.close(file)

    @contextmanager
    def _failing_well(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PrivacyError(
                603, where=str(self.path), seen=error.strerror or "it cannot be read or written"
            ) from error


def check_limits(
    entries: Sequence[LedgerEntry],
    study: str,
    more: Mechanism,
    limits: PrivacyLimits,
    signed_study: str = "",
) -> None:
    """Refuse what would exceed a site's limits, `more` included.

    Args:
        entries: The ledger.
        study: The run's id.
        more: What is to be added.
        limits: The site's, and the run's own.
        signed_study: Whose runs add up; empty in a simulation, where a run is a study.

    Raises:
        PrivacyError: HF-601.
    """
    own = [*spent_mechanisms(entries, study), more]
    if limits.epsilon is not None and not within_epsilon(own, limits.delta, limits.epsilon):
        raise budget_exceeded("this study", limits.epsilon)
    runs = [*spent_mechanisms(entries, study, signed_study), more]
    of_study = limits.epsilon_of_study
    if of_study is not None and not within_epsilon(runs, limits.delta, of_study):
        raise budget_exceeded("all runs of this study", of_study)
    everything = [*spent_mechanisms(entries), more]
    if limits.epsilon_max is not None and not within_epsilon(
        everything, limits.delta, limits.epsilon_max
    ):
        raise budget_exceeded("all studies together", limits.epsilon_max)


def spent_mechanisms(
    entries: Sequence[LedgerEntry], study: str | None = None, signed_study: str = ""
) -> list[Mechanism]:
    """Return what was spent, or reserved and not closed.

    Args:
        entries: The ledger.
        study: A run's id; None: of all runs.
        signed_study: Where it is not empty, also of all other runs of this study, and of lines that
            name none: those may have been its.
    """
    signed = ("", signed_study) if signed_study else ()
    mechanism_of: dict[int, Mechanism] = {}
    for entry in entries:
        counts = study in (None, entry.study) or entry.signed_study in signed
        if counts and entry.event in ("reserve", "spend"):
            mechanism_of[entry.reserve] = entry.mechanism
    return list(mechanism_of.values())


def parse_ledger(data: bytes, path: Path) -> tuple[LedgerEntry, ...]:
    """Return the finished lines of a ledger's bytes, checked.

    Raises:
        PrivacyError: A line is not what it was (HF-602).
    """
    lines = data.split(b"\n")[:-1]
    parsed: list[LedgerEntry] = []
    before = FIRST
    for number, line in enumerate(lines):
        entry = _entry(line, path, number)
        if entry.number != number or entry.hash != _hash(before, entry.body()):
            raise damaged_ledger(path, f"line {number + 1} is not what was written")
        parsed.append(entry)
        before = entry.hash
    return tuple(parsed)


def _entry(line: bytes, path: Path, number: int) -> LedgerEntry:
    try:
        raw = json.loads(line)
        mechanism = Mechanism(
            float(raw["noise_multiplier"]),
            float(raw["sample_rate"]),
            int(raw["steps"]),
            bool(raw.get("discrete", False)),
        )
        if not math.isfinite(mechanism.noise_multiplier + mechanism.sample_rate):
            raise ValueError("a number that is none")
        return LedgerEntry(
            number=int(raw["number"]),
            event=raw["event"],
            time=float(raw["time"]),
            study=str(raw["study"]),
            name=str(raw["name"]),
            round=int(raw["round"]),
            mechanism=mechanism,
            reserve=int(raw["reserve"]),
            hash=str(raw["hash"]),
            signed_study=str(raw.get("signed_study", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_ledger(path, f"line {number + 1} cannot be read") from error


def _hash(before: str, body: dict[str, Any]) -> str:
    return hashlib.sha256((before + json.dumps(body, sort_keys=True)).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def budget_exceeded(what: str, limit: float) -> PrivacyError:
    """Return the refusal of what would cost more than the site permits (HF-601)."""
    return PrivacyError(
        601,
        where="privacy budget",
        seen=f"{what} would cost this site's people more than ε {limit:g}",
    )


def damaged_ledger(path: Path, seen: str) -> PrivacyError:
    """Return the error for a ledger that cannot be trusted (HF-602)."""
    return PrivacyError(602, where=str(path), seen=seen)
