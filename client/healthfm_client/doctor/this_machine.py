"""What this machine brings: packages, processors, memory, disk, and which attention it gets."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch

from healthfm_client.doctor.findings import DoctorFinding, failed, passed
from healthfm_core.errors import ConfigError
from healthfm_core.kernels.ct_attention import ops
from healthfm_core.kernels.ct_attention.cpu import compiled
from healthfm_core.processes import usable_processors

GIB: Final = 2**30
LOW_MEMORY_GIB: Final = 4.0
LOW_DISK_GIB: Final = 5.0
LEAST_DISK_GIB: Final = 0.5
MEMINFO: Final = Path("/proc/meminfo")


def look(folder: Path) -> Iterator[DoctorFinding]:
    """Yield what is installed and how fast the model's attention runs here.

    Args:
        folder: The site's, whose disk is looked at.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in ("healthfm", "torch", "flwr"))
    yield passed("packages", f"Python {platform.python_version()}, {packages}")
    processors = usable_processors()
    threads = torch.get_num_threads()
    yield passed("processors", f"{processors} {platform.machine()}, {threads} threads in use")
    yield from _attention()
    yield from _memory()
    yield _disk(folder)


def _attention() -> Iterator[DoctorFinding]:
    said = ops.implementation(torch.device("cpu"), torch.float32)
    reason = compiled.why_absent()
    if reason is None:
        yield passed("attention", said)
    else:
        do = "install the wheel of your coordinator, or g++ and the package again"
        slow = f"{said}; the compiled kernel, several times faster, is missing: {reason}"
        yield DoctorFinding("attention", "warn", slow, do)
    for n in range(torch.cuda.device_count()):
        named = f"{torch.cuda.get_device_name(n)}: "
        said = ops.implementation(torch.device("cuda", n), torch.bfloat16)
        yield passed("gpu", f"{named}{said}")


def _memory() -> Iterator[DoctorFinding]:
    if not MEMINFO.is_file():
        return
    lines = (line.partition(":") for line in MEMINFO.read_text().splitlines())
    kib = {name: float(rest.split()[0]) for name, _, rest in lines if rest.split()}
    free, total = (kib[name] * 1024 / GIB for name in ("MemAvailable", "MemTotal"))
    seen = f"{free:.1f} of {total:.1f} GiB free"
    if free < LOW_MEMORY_GIB:
        do = "stop what else runs here; the default model trains in about 2 GiB"
        yield DoctorFinding("memory", "warn", seen, do)
    else:
        yield passed("memory", seen)


def _disk(folder: Path) -> DoctorFinding:
    here = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(here).free / GIB
    seen = f"{free:.1f} GiB free where the site's folder is"
    if free < LEAST_DISK_GIB:
        error = ConfigError(
            105,
            where="disk",
            seen=seen,
            wanted=f"{LEAST_DISK_GIB:g} GiB at the least: what cannot be recorded does not leave",
            do="Make room, or move the site's folder to another disk",
        )
        return failed("disk", error)
    if free < LOW_DISK_GIB:
        return DoctorFinding("disk", "warn", seen, "make room before a long study")
    return passed("disk", seen)
