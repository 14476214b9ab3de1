"""MLflow: a run of its tracking server, by its own client.

Whoever may write there is the client's business: ``MLFLOW_TRACKING_TOKEN``, or
``MLFLOW_TRACKING_USERNAME`` and ``_PASSWORD``, in the environment. The client's report of its use
to its makers is off, and no name of a machine or an account goes along.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from healthfm_core.errors import ConfigError, RunError
from healthfm_server.tracking.tracked_round import TrackedRound
from healthfm_server.tracking.tracked_run import Ending, TrackedRun
from healthfm_server.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

PER_CALL: Final = 900
"""Metrics of one call; the server takes 1,000 of metrics, parameters and tags together."""
PARAMETERS_PER_CALL: Final = 100
LONGEST: Final = 5900
"""Characters of a parameter's value; the server takes 6,000."""
RUN_TAG: Final = "healthfm.run_id"
ROUND_TAG: Final = "healthfm.round"
USUAL: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment, where nothing else is set: a server that is gone is told in seconds."""
_Item = TypeVar("_Item")
ENDED: Final[Mapping[Ending, str]] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
}


class ServerRun:
    """One run on an MLflow server; the same run is gone on with, by its id, after a restart.

    Args:
        client: MLflow's.
        run: The run here.
        experiment: Name of the experiment there.
        uri: The server's.
    """

    def __init__(self, client: MlflowClient, run: TrackedRun, experiment: str, uri: str) -> None:
        self._client, self._run, self._experiment, self._uri = client, run, experiment, uri
        self._id = ""
        self._known = 0

    def write(self, rounds: Sequence[TrackedRound]) -> None:
        """Log the rounds that are not there yet; the last one's number goes with them, as a tag."""
        with _answers(self._uri):
            if rounds and not self._id:
                self._find_or_begin(rounds[0].ended_ms)
            for each in rounds:
                if each.number > self._known or each.is_again:
                    self._log(each)

    def close(self, ending: Ending) -> None:
        """End the run where it has ended here."""
        if self._id and ending in ENDED:
            with _answers(self._uri):
                self._client.set_terminated(self._id, ENDED[ending])

    def _log(self, each: TrackedRound) -> None:
        from mlflow.entities import RunTag

        self._known = max(self._known, each.number)
        *before, last = _in_parts(list(_metrics(each)), PER_CALL)
        for metrics in before:
            self._client.log_batch(self._id, metrics=metrics)
        tag = RunTag(ROUND_TAG, str(self._known))
        self._client.log_batch(self._id, metrics=last, tags=[tag])

    def _find_or_begin(self, ms: int) -> None:
        found = self._client.get_experiment_by_name(self._experiment)
        number = found.experiment_id if found else self._client.create_experiment(self._experiment)
        mine = f"tags.`{RUN_TAG}` = '{self._run.run_id}'"
        for known in self._client.search_runs([number], mine):
            self._id = known.info.run_id
            self._known = int(known.data.tags.get(ROUND_TAG, 0))
            return
        tags = {RUN_TAG: self._run.run_id, "healthfm.release": version("healthfm")}
        made = self._client.create_run(number, ms, tags, run_name=self._run.name)
        self._log_parameters(made.info.run_id)
        self._id = made.info.run_id

    def _log_parameters(self, run_id: str) -> None:
        from mlflow.entities import Param

        told = [Param(key, value[:LONGEST]) for key, value in self._run.parameters().items()]
        for params in _in_parts(told, PARAMETERS_PER_CALL):
            self._client.log_batch(run_id, params=params)


def _in_parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Yield `items` in order, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _metrics(each: TrackedRound) -> Iterator[Metric]:
    from mlflow.entities import Metric

    for step, figures in each.steps():
        for name, value in sorted(figures.items()):
            yield Metric(name, value, each.ended_ms, step)


@contextmanager
def _answers(uri: str) -> Iterator[None]:
    """Say in one sentence what the server refused, or that it is not there (HF-731)."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        said = str(error).splitlines()[0][:200]
        raise RunError(731, where=uri, seen=f"MLflow: {said}") from error


def _open(run: TrackedRun, experiment: str, at: str | None) -> ServerRun:
    for name, value in USUAL.items():
        os.environ.setdefault(name, value)
    uri = at or os.environ.get("MLFLOW_TRACKING_URI", "")
    if urlsplit(uri).scheme not in ("http", "https"):
        raise ConfigError(
            102,
            where="--to mlflow",
            seen=f"{uri!r} is no server's address" if uri else "no server is named",
            wanted="the address of an MLflow tracking server",
            do="Write --at https://mlflow.example.org, or set MLFLOW_TRACKING_URI",
        )
    if urlsplit(uri).username is not None:
        raise ConfigError(
            102,
            where="--to mlflow",
            seen="there is an account in the address",
            wanted="an address that may stand in a shell's history",
            do="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
        )
    return ServerRun(_client(uri), run, experiment, uri)


def _client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


TRACKER = Tracker(
    title="MLflow",
    extra="tracking-mlflow",
    package="mlflow",
    at="the server's address (default: $MLFLOW_TRACKING_URI)",
    open=_open,
)
