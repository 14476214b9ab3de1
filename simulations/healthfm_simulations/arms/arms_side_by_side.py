"""The arms of one replicate trained side by side, each in a process.

What a process leaves is the arm's run folder. Who asked then goes on with the finished run, as with
one that is resumed, so the weights are the same bits at any number of processes. What a process
could not do is done again by who asked, which tells the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from os import _exit as exit_at_once
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Final, TypeAlias

import torch

from healthfm_core.config import RunConfig
from healthfm_core.config.simulation import Arm
from healthfm_core.errors import HealthFMError
from healthfm_core.processes import follow_the_parent
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.arms.arm_training import train_arm
from healthfm_simulations.cross_validation import CrossValidationFold

LOOK_S: Final = 0.2
"""How long word of a process is waited for before the processes themselves are looked at."""

_LONGEST_FIRST: Final = ("centralised", "local", "ensemble")

Heard: TypeAlias = "Queue[tuple[Arm, str, float]]"
ArmListener = Callable[[Arm, str, float], None]
"""Is called with an arm, the name of one of its runs, and the share of it that is done."""

_words: list[Heard] = []
"""Where a worker process tells its progress."""


def train_side_by_side(
    config: RunConfig,
    fold: CrossValidationFold,
    folders: Mapping[Arm, Path],
    *,
    vocabulary: Vocabulary | None,
    on_progress: ArmListener,
) -> dict[Arm, float]:
    """Train arms into their run folders, ``simulation.workers`` of them at a time.

    Args:
        config: The run's configuration.
        fold: Whose training sites.
        folders: Arm → where its runs go; the first makes the vocabulary that all use.
        vocabulary: The vocabulary to use; None takes the first arm's.
        on_progress: Is called with the progress.

    Returns:
        Arm → the seconds it took, of those that are done.
    """
    context = get_context("spawn")
    words, stop = context.Queue(), context.Event()
    begin = (config.simulation.threads, words, stop)
    pool = ProcessPoolExecutor(config.simulation.workers, context, _begin, begin)
    work: dict[Arm, Future[float | None]] = {}
    try:
        for arm in _in_order(list(folders)):
            work[arm] = pool.submit(_train, arm, config, fold, folders[arm], vocabulary)
            if vocabulary is None:
                _listen(work, words, on_progress, until_heard=True)
                study = RunStore(folders[arm], keep=1).study()
                vocabulary = study.vocabulary if study else None
        _listen(work, words, on_progress)
        return _seconds(work)
    except BrokenProcessPool:  # before all had begun
        return _seconds(work)
    except BaseException:
        stop.set()  # their run folders are whole at any moment
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(arms: Sequence[Arm]) -> list[Arm]:
    """Return the first arm, and the others so that the last to begin are the shortest."""
    place = {arm: i for i, arm in enumerate(_LONGEST_FIRST)}
    return [*arms[:1], *sorted(arms[1:], key=lambda arm: place.get(arm, len(place)))]


def _listen(
    work: Mapping[Arm, Future[float | None]],
    words: Heard,
    on_progress: ArmListener,
    *,
    until_heard: bool = False,
) -> None:
    """Pass on what the processes tell, until they are done or, if so wished, one has told."""
    while True:
        ended = all(future.done() for future in work.values())
        try:
            on_progress(*words.get(timeout=0 if ended else LOOK_S))
        except Empty:
            if ended:
                return
            continue
        if until_heard:
            return


def _seconds(work: Mapping[Arm, Future[float | None]]) -> dict[Arm, float]:
    """Return what each arm took that a process finished: none told an error or was killed."""
    took: dict[Arm, float] = {}
    for arm, future in work.items():
        try:
            seconds = future.result()
        except BrokenProcessPool:
            continue
        if seconds is not None:
            took[arm] = seconds
    return took


def _begin(threads: int, words: Heard, stop: Event) -> None:
    follow_the_parent()
    Thread(target=_end_when, args=(stop,), daemon=True).start()
    torch.set_num_threads(threads)
    _words[:] = [words]


def _end_when(stop: Event) -> None:
    stop.wait()
    exit_at_once(1)


def _train(
    arm: Arm,
    config: RunConfig,
    fold: CrossValidationFold,
    folder: Path,
    vocabulary: Vocabulary | None,
) -> float | None:
    """Train one arm in this process; return its seconds, or None for who asked to do it again."""

    def tell(run: str, share: float) -> None:
        _words[0].put((arm, run, share))

    try:
        return train_arm(arm, config, fold, folder, vocabulary=vocabulary, on_progress=tell).seconds
    except HealthFMError:  # errors of ours do not travel between processes
        return None
