"""What a command answers, as against what went wrong (`healthfm_core.console`)."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write a line to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
