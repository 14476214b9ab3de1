"""The sums that this site helped to open, on disk before it helps; each over one set of sites.

Two sums of the same numbers over sets of sites that differ tell by their difference what the sites
sent that differ. A site therefore gives its share of one set only. That is enough for every other
site too: whoever is left out of a second sum is protected by the sites that are in both.

The record is a line of JSON for each sum, appended under a lock and flushed before the site's
shares leave. It outlives the process, the run and the coordinator's memory. A simulated site
without a folder keeps it in Flower's context.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from healthfm_client.site.sum_rules import SumRules
from healthfm_core.errors import PrivacyError
from healthfm_core.federation.secure.contracted_sums import STATISTICS
from healthfm_core.trust import files, signed


@dataclass(frozen=True)
class OpenedSum:
    """One sum that this site helped to open, or gave a part to that can be opened without it.

    Attributes:
        session: The session's name, hex.
        run: What its terms name as the study.
        purpose: ``statistics`` or ``round``.
        number: The round's number.
        inputs: Hashes of what the site's part followed from; a sum with one of them in common is of
            the same numbers.
        senders: The sites in it, sorted; empty where the site does not know them.
    """

    session: str
    run: str
    purpose: str
    number: int
    inputs: tuple[str, ...]
    senders: tuple[str, ...]

    def adds_up_the_same(self, other: OpenedSum, rules: SumRules) -> bool:
        """Return whether both are sums of numbers that may be the same.

        Statistics are, whatever their settings: the counts follow from the same records.
        """
        if self.purpose != other.purpose:
            return False
        if rules.other_sites_in_a_new_run and self.run != other.run:
            return False
        same_round = (self.run, self.number) == (other.run, other.number)
        every_one = self.purpose == STATISTICS or rules.same_sites_in_every_round
        return every_one or same_round or not set(self.inputs).isdisjoint(other.inputs)


class OpenedSums(Protocol):
    """Where a site keeps them."""

    def add(self, opened: OpenedSum, rules: SumRules) -> None:
        """Put a sum on record, durable once this returns.

        Args:
            opened: What is about to be opened.
            rules: Which sums the site holds for the same.

        Raises:
            PrivacyError: An earlier sum of the same numbers was of other sites (HF-614), or the
                record cannot be used (HF-615).
        """

    def last_number(self, run: str, purpose: str) -> int:
        """Return the largest number opened for a run and a purpose; -1 where there is none."""


class RememberedSums:
    """Kept in a list, which the caller keeps.

    Args:
        known: The sums so far; `add` appends to it.
    """

    def __init__(self, known: list[OpenedSum]) -> None:
        self._known = known

    def add(self, opened: OpenedSum, rules: SumRules) -> None:
        """As `OpenedSums.add`."""
        if _is_new(opened, self._known, rules):
            self._known.append(opened)

    def last_number(self, run: str, purpose: str) -> int:
        """As `OpenedSums.last_number`."""
        return _last_number(self._known, run, purpose)


class SumsFile:
    """Kept in a file of the site's folder.

    Args:
        path: Of the file; it is made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, opened: OpenedSum, rules: SumRules) -> None:
        """As `OpenedSums.add`."""
        with self._locked() as file:
            if _is_new(opened, self._read(file), rules):
                file.write(signed.canonical(asdict(opened)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
                files.flush_folder(self._path.parent)

    def last_number(self, run: str, purpose: str) -> int:
        """As `OpenedSums.last_number`."""
        with self._locked() as file:
            return _last_number(self._read(file), run, purpose)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, files.PRIVATE)
            with os.fdopen(handle, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
        except OSError as error:
            raise _unusable(self._path, error.strerror or "it cannot be written") from error

    def _read(self, file: BinaryIO) -> list[OpenedSum]:
        """Return the lines; a torn last one, of a sum that was never opened, is cut off."""
        whole, _, torn = file.read().rpartition(b"\n")
        if torn:
            file.truncate(file.seek(-len(torn), os.SEEK_END))
        try:
            return [opened_sum(json.loads(line)) for line in whole.splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            raise _unusable(self._path, "a line of it is damaged") from error


def opened_sum(raw: dict[str, Any]) -> OpenedSum:
    """Return the sum that `asdict` and JSON made text of.

    Raises:
        TypeError: It is none.
    """
    lists = {name: tuple(map(str, raw[name])) for name in ("inputs", "senders")}
    return OpenedSum(**{**raw, **lists})


def _is_new(opened: OpenedSum, known: Iterable[OpenedSum], rules: SumRules) -> bool:
    """Return whether the sum is not on record yet.

    Raises:
        PrivacyError: An earlier sum of the same numbers was of other sites (HF-614).
    """
    before = [other for other in known if opened.adds_up_the_same(other, rules)]
    for other in before:
        same_part = other.session == opened.session and not other.senders
        if not same_part and (not other.senders or other.senders != opened.senders):
            raise _of_other_sites(opened, other.senders)
    return opened not in before


def _of_other_sites(opened: OpenedSum, before: Collection[str]) -> PrivacyError:
    more, less = sorted({*opened.senders} - {*before}), sorted({*before} - {*opened.senders})
    differs = [f"with {', '.join(more)}"] * bool(more) + [f"without {', '.join(less)}"] * bool(less)
    return PrivacyError(
        614,
        where=f"secure aggregation, {opened.purpose} {opened.number}",
        seen=f"a second sum {' and '.join(differs)[:200] or 'of sites that are not known'}",
    )


def _last_number(known: Iterable[OpenedSum], run: str, purpose: str) -> int:
    found = [o.number for o in known if (o.run, o.purpose) == (run, purpose) and o.senders]
    return max(found, default=-1)


def _unusable(path: Path, seen: str) -> PrivacyError:
    return PrivacyError(615, where=path.name, seen=seen)
