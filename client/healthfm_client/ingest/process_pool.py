"""The same work on many pieces by several processes, its results in the order of the pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Final, Generic, TypeVar

from healthfm_core.errors import IngestError
from healthfm_core.processes import follow_the_parent

Piece = TypeVar("Piece")
Result = TypeVar("Result")
AHEAD: Final = 2
"""Pieces on their way for each process: one in work, one waiting or done."""
_of_this_process: list[Callable[[Any], Any]] = []


class OrderedPool(Generic[Piece, Result]):
    """Results of pieces, which are worked on in order, a few ahead of what is asked for.

    Use it in a ``with`` block, which ends the processes. One process is this one.

    Args:
        work: A piece → its result; both, and the work, must survive pickling between processes
            of one machine.
        pieces: What there is to do.
        processes: How many; a result does not depend on it.
    """

    def __init__(
        self, work: Callable[[Piece], Result], pieces: Sequence[Piece], processes: int
    ) -> None:
        self._work = work
        self._pieces = pieces
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: deque[tuple[int, Future[Result]]] = deque()

    def __enter__(self) -> OrderedPool[Piece, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def results(self, wanted: range) -> Iterator[Result]:
        """Yield the results of some pieces; what was begun of earlier ones is forgotten.

        Raises:
            IngestError: HF-314 where a process was killed; what the work raises.
        """
        for at in wanted:
            yield self._result(at) if self._processes > 1 else self._work(self._pieces[at])

    def _result(self, at: int) -> Result:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes, get_context("spawn"), _begin, (self._work,)
            )
        while self._waiting and self._waiting[0][0] != at:
            self._waiting.popleft()[1].cancel()
        first = self._waiting[-1][0] + 1 if self._waiting else at
        try:
            for piece in range(first, min(at + AHEAD * self._processes, len(self._pieces))):
                self._waiting.append((piece, self._pool.submit(_done, self._pieces[piece])))
            return self._waiting.popleft()[1].result()
        except BrokenProcessPool as error:
            raise IngestError(
                314,
                where="the processes that read side by side",
                seen="one of them was killed, as a system does that runs out of memory",
            ) from error


def _begin(work: Callable[[Any], Any]) -> None:
    """Keep the work; an interruption is the parent's to deal with, whose end is this one's."""
    follow_the_parent()
    _of_this_process[:] = [work]


def _done(piece: Any) -> Any:
    return _of_this_process[0](piece)
