"""A process's memory, as Linux tells it: `getrusage` has a child begin at its parent's peak."""

from __future__ import annotations

from pathlib import Path

_SELF = Path("/proc/self")


def held_mib() -> float:
    """Return what this process holds now."""
    return _status("VmRSS")


def peak_mib() -> float:
    """Return the most that this process has held since it began, or since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak begin anew at what is held now."""
    (_SELF / "clear_refs").write_text("5")


def _status(field: str) -> float:
    lines = (_SELF / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
