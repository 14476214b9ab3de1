"""A run in MLflow's own server: its rounds once, gone on with after the server was away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_server.__main__ import main
from healthfm_server.run_folder.run_store import RunStore
from tests.deploy.serving import free_port
from tests.deploy.test_supervision import eventually
from tests.end_to_end.deployed import REPOSITORY
from tests.server.tracking.test_track import ROUNDS, train

pytestmark = pytest.mark.deployment

PROGRAM = REPOSITORY / ".venv" / "mlflow-server" / "bin" / "mlflow"
"""In an environment of its own: the whole package wants another pyarrow than ours."""


@contextmanager
def server(folder, port):
    """Serve MLflow from a database in a folder, until the block ends."""
    if not PROGRAM.is_file():
        pytest.skip("MLflow's server is not installed: make test-deployment installs it")
    folder.mkdir(exist_ok=True)
    command = [PROGRAM, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "NO_PROXY": "*"}
    with subprocess.Popen(command, env=env, cwd=folder, start_new_session=True) as process:
        try:
            eventually(lambda: is_up(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def is_up(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


def runs_of(at, experiment):
    """Return the runs that the server has, as its REST API tells them."""
    api = f"{at}/api/2.0/mlflow"
    with httpx.Client(trust_env=False) as client:
        named = {"experiment_name": experiment}
        found = client.get(f"{api}/experiments/get-by-name", params=named).json()["experiment"]
        asked = {"experiment_ids": [found["experiment_id"]]}
        return client.post(f"{api}/runs/search", json=asked).json().get("runs", [])


def history_of(at, run, metric):
    """Return step → value of a metric; twice the same step fails."""
    asked = {"run_id": run["info"]["run_id"], "metric_key": metric}
    told = httpx.get(f"{at}/api/2.0/mlflow/metrics/get-history", params=asked, trust_env=False)
    rows = told.json()["metrics"]
    steps = [int(row.get("step", 0)) for row in rows]
    assert len(set(steps)) == len(steps), "a round stands there twice"
    return dict(zip(steps, (float(row["value"]) for row in rows), strict=True))


def test_a_run_stands_there_once_and_goes_on_after_the_server_was_away(tmp_path, capsys):
    folder, port = train(tmp_path / "run", until=2), free_port()
    words = ["track", str(folder), "--to", "mlflow", "--experiment", "heart"]
    words += ["--at", f"http://127.0.0.1:{port}"]
    with server(tmp_path / "server", port) as at:
        assert main(words) == 0
        (run,) = runs_of(at, "heart")
        assert run["info"]["status"] == "RUNNING"
        assert sorted(history_of(at, run, "round_seconds")) == [1, 2]
    train(folder, resume=True)
    assert main(words) == 8
    assert "HF-731" in capsys.readouterr().err
    with server(tmp_path / "server", port) as at:
        for _ in range(2):
            assert main(words) == 0
        (run,) = runs_of(at, "heart")
        assert run["info"]["status"] == "FINISHED"
        rows = RunStore(folder, 1).history()
        seconds = {row["round"]: row["seconds"] for row in rows}
        assert history_of(at, run, "round_seconds") == pytest.approx(seconds)
        assert sorted(history_of(at, run, "tuning_auroc")) == [*range(ROUNDS)]
        told = {each["key"]: each["value"] for each in run["data"]["params"]}
        assert told["federation.rounds"] == str(ROUNDS)
        kept = {each["key"]: each["value"] for each in run["data"]["tags"]}
        assert kept["healthfm.run_id"] == RunStore(folder, 1).run_id()
        for secret in (str(tmp_path), os.uname().nodename):
            assert secret not in {*told.values(), *kept.values(), *kept}
        shutil.copytree(folder, tmp_path / "copied")
        Path(tmp_path / "copied" / "run-id").write_text("another")
        words[1] = str(tmp_path / "copied")
        assert main(words) == 0
        assert len(runs_of(at, "heart")) == 2, "another run is another one there"
