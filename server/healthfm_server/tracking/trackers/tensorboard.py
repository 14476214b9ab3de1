"""TensorBoard: event files that it shows and follows; nothing is sent anywhere.

Its own `EventFileWriter` puts the machine's name into the file's, so the records are written by
the `RecordWriter` beneath it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from healthfm_server.tracking.tracked_round import TrackedRound
from healthfm_server.tracking.tracked_run import Ending, TrackedRun
from healthfm_server.tracking.tracker import Tracker

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

FOLDER: Final = "tensorboard"
_FILE: Final = "events.out.tfevents.{ms:013d}.healthfm"


class EventFile:
    """The event file of one run, made of its whole history; one of an earlier process is removed.

    Args:
        folder: Of the run's event file alone.
        run: The run.
    """

    def __init__(self, folder: Path, run: TrackedRun) -> None:
        self._folder, self._run = folder, run
        self._file: Path | None = None

    def write(self, rounds: Sequence[TrackedRound]) -> None:
        """Append the rounds' scalars; one that was done again ends what was known of it."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        events = []
        for each in rounds:
            if each.is_again:
                start = SessionLog(status=SessionLog.START)
                events.append(Event(wall_time=_s(each), step=each.number, session_log=start))
            events += [_scalars(each, step, found) for step, found in each.steps() if found]
        if self._file is None and rounds:
            events = [*self._beginning(rounds[0]), *events]
            self._file = self._begun(rounds[0].ended_ms)
        self._append(events)

    def close(self, ending: Ending) -> None:
        """Do nothing: every write is on disk, and the end of a run needs TensorFlow to be told."""

    def _begun(self, ms: int) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.glob("events.out.tfevents.*.healthfm"):
            old.unlink()
        return self._folder / _FILE.format(ms=ms)

    def _beginning(self, first: TrackedRound) -> list[Event]:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        about = hparams_pb(self._run.parameters(), trial_id=self._run.run_id)
        at = _s(first)
        return [
            Event(wall_time=at, file_version="brain.Event:2"),
            Event(wall_time=at, summary=about),
        ]

    def _append(self, events: Sequence[Event]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is None:
            return
        with self._file.open("ab") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())


def _scalars(of: TrackedRound, step: int, figures: Mapping[str, float]) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=v) for name, v in sorted(figures.items())]
    return Event(wall_time=_s(of), step=step, summary=Summary(value=values))


def _s(of: TrackedRound) -> float:
    return of.ended_ms / 1000


def _open(run: TrackedRun, experiment: str, at: str | None) -> EventFile:
    base = run.below / FOLDER if at is None else Path(at)
    return EventFile(base / run.name, run)


TRACKER = Tracker(
    title="TensorBoard",
    extra="tracking-tensorboard",
    package="tensorboard",
    at="the folder for event files, which `tensorboard --logdir` shows (default: in the run's)",
    open=_open,
)
