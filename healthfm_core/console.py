"""How a command ends: an exit code, and one sentence on stderr for whatever went wrong."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Final

from healthfm_core.errors import ConfigError, HealthFMError

INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141


def exit_code(
    work: Callable[[], int], *, stopped: str = "Interrupted; nothing was left half-written."
) -> int:
    """Do `work` and return its exit code.

    An error that a person can put right, or that the operating system reports, is printed and gives
    its class's code (docs/exit-codes.md). A closed pipe, as after ``| head``, prints nothing.

    Args:
        work: Returns its own exit code; raises `HealthFMError` for what a person can put right.
        stopped: The sentence after an interruption (Ctrl-C, 130).
    """
    try:
        return work()
    except HealthFMError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"{stopped}\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        sentence = unusable(error)
        sys.stderr.write(f"{sentence}\n")
        return sentence.exit_code


def unusable(error: OSError) -> ConfigError:
    """Return what the system refused as an error with a code (HF-107), or a full disk (HF-105)."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ConfigError(
        105 if full else 107,
        where=str(error.filename or "a file or connection"),
        seen=(error.strerror or type(error).__name__).lower(),
    )
