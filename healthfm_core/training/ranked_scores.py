"""AUROC and average precision of more scores than fit in memory, exactly, ties counted as ties.

Scores are sorted a part at a time; a full part goes to a file of its own. Where an outcome stands
among all others is then counted part by part, so that what is held does not grow with the people.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int64, UInt32
from healthfm_core.npy_files import SUFFIX, ArrayViews

AT_ONCE: Final = 1 << 22
"""Scores that are sorted together."""
_SIGN: Final = np.uint32(1 << 31)


@dataclass(frozen=True)
class _SortedPart:
    """Some scores in order, as whole numbers that compare as they do: of cases, and of the rest."""

    cases: UInt32
    others: UInt32
    release: Callable[[], None] = lambda: None


class RankedScores:
    """Scores and outcomes as they come; in a folder of its own once they are many.

    Args:
        at_once: Scores that are held.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._waiting: list[tuple[Float32, Bool]] = []
        self._n_waiting = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._parts: list[_SortedPart] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._parts = []
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, score: Float32, outcome: Bool) -> None:
        """Add scores [n], finite, and whether the outcome came [n]."""
        for low in range(0, len(score), self._at_once):
            part = slice(low, low + self._at_once)
            self._waiting.append((score[part], outcome[part]))
            self._n_waiting += len(score[part])
            if self._n_waiting >= self._at_once:
                self._put_away()

    def metrics(self) -> dict[str, float]:
        """Return ``auroc`` and ``average_precision``; nothing without both a case and another."""
        if self._waiting:
            self._parts.append(self._sorted())
        cases = sum(len(part.cases) for part in self._parts)
        others = sum(len(part.others) for part in self._parts)
        if not cases or not others:
            return {}
        won, precisions = 0, list[float]()
        for at in self._cases():
            hits, flagged, above = (np.zeros(len(at), np.int64) for _ in range(3))
            for part in self._parts:
                hits += _above(part.cases, at, "left")
                flagged += _above(part.others, at, "left")
                above += _above(part.others, at, "right")
                part.release()
            won += int((2 * others - flagged - above).sum())
            precisions.append(math.fsum((hits / (hits + flagged)).tolist()))
        return {
            "auroc": won / (2 * cases * others),
            "average_precision": math.fsum(precisions) / cases,
        }

    def _cases(self) -> Iterator[UInt32]:
        for part in self._parts:
            for low in range(0, len(part.cases), self._at_once):
                yield part.cases[low : low + self._at_once]

    def _sorted(self) -> _SortedPart:
        score = np.concatenate([one for one, _ in self._waiting])
        outcome = np.concatenate([one for _, one in self._waiting])
        self._waiting, self._n_waiting = [], 0
        key = _keys(score)
        return _SortedPart(np.sort(key[outcome]), np.sort(key[~outcome]))

    def _put_away(self) -> None:
        part = self._sorted()
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="healthfm-scores-")
        files = {
            name: Path(self._folder.name) / f"{len(self._parts)}-{name}{SUFFIX}"
            for name in ("cases", "others")
        }
        np.save(files["cases"], part.cases)
        np.save(files["others"], part.others)
        mapped = ArrayViews.of(files)
        self._parts.append(_SortedPart(mapped["cases"], mapped["others"], mapped.release))


def _keys(score: Float32) -> UInt32:
    """Return whole numbers in the order of the scores; the two zeros are one."""
    bits = (score.astype(np.float32) + np.float32(0.0)).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _above(part: UInt32, at: UInt32, side: Literal["left", "right"]) -> Int64:
    """Return how many of a part in order are above each of `at`; from the left, equal ones too."""
    return np.asarray(len(part) - np.searchsorted(part, at, side=side), np.int64)
