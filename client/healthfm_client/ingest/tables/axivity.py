"""Raw Axivity files (.cwa) through actipy, which needs Java: minutes of acceleration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import numpy as np

from healthfm_client.ingest.tables.duckdb_reader import unreadable
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US
from healthfm_core.arrays import Float64, Int64
from healthfm_core.errors import IngestError

LOWPASS_HZ: Final = 20


def minutes_of(file: Path) -> tuple[Int64, Float64]:
    """Return (time of each minute with a reading in µs, its mean acceleration in milli-g).

    What UK Biobank published: below 20 Hz, calibrated to gravity where the record allows it, the
    vector's length less 1 g and not under 0, stretches in which nothing moved left out
    (Doherty et al. 2017, PLoS ONE 12:e0169649). A week takes about 3 GB of memory.

    Raises:
        IngestError: HF-303, HF-312 where actipy or Java is not there.
    """
    actipy = _actipy(file)
    try:
        data, _ = actipy.read_device(
            str(file), lowpass_hz=LOWPASS_HZ, resample_hz=None, verbose=False
        )
    except (subprocess.CalledProcessError, ValueError, EOFError, RuntimeError, OSError) as error:
        raise unreadable(file, "actipy cannot read it") from error
    if not len(data):
        return np.zeros(0, np.int64), np.zeros(0, np.float64)
    g = np.sqrt(sum(data[axis].to_numpy(np.float32) ** 2 for axis in "xyz"))
    minute = data.index.to_numpy().astype("datetime64[us]").astype(np.int64) // MINUTE_US
    seen = np.isfinite(g)
    first = int(minute.min())
    count = np.bincount(minute[seen] - first)
    total = np.bincount(minute[seen] - first, weights=np.maximum(g[seen] - 1, 0) * 1000)
    there = np.flatnonzero(count)
    return (there + first) * MINUTE_US, total[there] / count[there]


def _actipy(file: Path) -> Any:
    try:
        import actipy
    except ImportError as error:
        raise _lacking(
            file,
            f"the package {error.name}",
            "pip install 'healthfm[cwa]' (actipy's licence is for academic use alone)",
        ) from error
    if shutil.which("java") is None:
        raise _lacking(file, "Java, which actipy runs,", "Java 8 or later")
    return actipy


def _lacking(file: Path, what: str, install: str) -> IngestError:
    return IngestError(
        312,
        where=file.suffix if file.suffix != ".gz" else ".cwa.gz",
        seen=f"{what} is not installed",
        wanted="raw accelerometer files are read through actipy",
        do=f"Install it ({install}), or ingest the processed time series.",
    )
