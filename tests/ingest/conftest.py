"""A small event table of two sites."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore


def warehouse() -> pa.Table:
    """Five events of three subjects at sites 10 and 9, neither sorted nor free of doubles."""
    day = datetime(2020, 1, 2)
    return pa.table(
        {
            "subject_id": pa.array([3, 1, 1, 1, 2], pa.int64()),
            "time": pa.array([day, day, None, day, datetime(2999, 1, 1)], pa.timestamp("us")),
            "code": pa.array(["B", "B", "A", "B", "B"]).dictionary_encode(),
            "numeric_value": pa.array([1.0, 2.0, None, 2.0, 3.0], pa.float32()),
            "site": pa.array([9, 10, 10, 10, 9], pa.int32()),
        }
    )


@pytest.fixture
def table() -> pa.Table:
    """`warehouse`."""
    return warehouse()


@pytest.fixture
def source(tmp_path: Path, table: pa.Table) -> Path:
    """`warehouse` as ``events.parquet``."""
    pq.write_table(table, tmp_path / "events.parquet")
    return tmp_path / "events.parquet"


@pytest.fixture(scope="session")
def ingested(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, seconds: dict[str, float]
) -> Callable[..., list[SiteStore]]:
    """Ingest a real data set once a session, and open its stores."""
    done: dict[tuple[str, str], list[SiteStore]] = {}

    def get(source: str, folder: str, **options: object) -> list[SiteStore]:
        key = (source, repr(sorted(options.items())))
        if key not in done:
            out = tmp_path_factory.mktemp(source) / "stores"
            start = time.perf_counter()
            paths = ingest(source, shared_data / folder, out, **options)
            seconds[source] = time.perf_counter() - start
            done[key] = [SiteStore.open(path) for path in paths]
        return done[key]

    return get


@pytest.fixture(scope="session")
def seconds() -> dict[str, float]:
    """Source → how long `ingested` took."""
    return {}
