"""Switches on shape and type checks, one thread, no network habits; shared fixtures."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(
    FLWR_TELEMETRY_ENABLED="0",
    FLWR_DISABLE_UPDATE_CHECK="1",
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_worker_niceness="0",  # Ray gives its workers 15, with which a busy machine starves them
    MPLBACKEND="Agg",
)

from jaxtyping import install_import_hook

import tests.shape_checks  # noqa: F401  (the hook below finds it by name)

install_import_hook("healthfm_core", "tests.shape_checks.check")  # before anything imports it

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.compiled_kernel import use_library  # noqa: F401  (a fixture)

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets beside the checkout; without it the test skips."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data in ../shared/data: nothing of it is copied into the project")
    return folder
