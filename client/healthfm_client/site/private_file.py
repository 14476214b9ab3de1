"""Files that stay at the site: new, for their owner alone, in no folder that is handed on."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from healthfm_core.errors import PolicyError, RunError

HANDED_ON: Final = {
    "model.safetensors": "a model",
    "study.json": "a model or a run",
    "history.jsonl": "a run",
    "metrics.json": "a run's report",
    ".git": "a repository",
}
"""Names that mark a folder whose content is exported, sent or pushed, and what it is."""
OWNER_ONLY: Final = 0o600


def check_stays(file: Path) -> None:
    """Check that what is about people may be written to `file`.

    Raises:
        RunError: There is something already (HF-711).
        PolicyError: The folder, or one it is in, is handed on (HF-502).
    """
    if file.is_symlink() or file.exists():
        raise _not_written(file, "something is there already")
    for folder in file.resolve().parents:
        for name, what in HANDED_ON.items():
            if (folder / name).exists():
                raise PolicyError(502, where=str(file), seen=f"the folder belongs to {what}")


def write_private(file: Path, text: str) -> None:
    """Write a new file that nobody but its owner may read, whole or not at all.

    Raises:
        RunError: It is there already, or cannot be written (HF-711).
    """
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError as error:
        raise _not_written(file, "something is there already") from error
    except OSError as error:
        raise _not_written(file, error.strerror or "it cannot be written") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
    except BaseException:
        file.unlink(missing_ok=True)
        raise


@contextmanager
def private_draft(file: Path) -> Iterator[Path]:
    """Give an empty file beside `file`, its owner's alone, that takes its name at the end.

    After an exception, an interruption too, nothing is left.

    Raises:
        RunError: There is a `file` by the end, or none can be written there (HF-711).
    """
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY))
    except OSError as error:
        raise _not_written(file, error.strerror or "it cannot be written") from error
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        os.link(draft, file)  # which, unlike a renaming, replaces nothing
    except OSError as error:
        raise _not_written(file, error.strerror or "it cannot be written") from error
    finally:
        draft.unlink(missing_ok=True)


def _not_written(file: Path, seen: str) -> RunError:
    return RunError(711, where=str(file), seen=seen)
