"""Files for their owner alone: the umask of every program, and folders that are open to others.

A site's tables hold people. Under the usual umask of 022 whatever a library writes can be read by
every account of the machine; so each program sets its own, which its child processes inherit.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

UMASK: Final = 0o077
"""New files get 0600 and new folders 0700, whatever the library that makes them asks for."""
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@contextmanager
def owner_only() -> Iterator[None]:
    """Make what this process and its children write readable by its owner alone."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(folder: Path) -> Iterator[Path]:
    """Yield `folder` and what is in it where others than the owner may read, write or enter.

    Symbolic links are not followed. A folder that is closed closes what is in it, so below one
    that was found closed nothing is looked at.
    """
    if os.name != "posix" or folder.is_symlink() or not folder.exists():
        return
    if not folder.lstat().st_mode & OTHERS:
        return
    yield folder
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            yield from open_to_others(path)


def close_to_others(folder: Path) -> int:
    """Take the group's and everybody's rights from `folder` and what is in it; return how many.

    Raises:
        PermissionError: Something in it is another account's.
    """
    found = list(open_to_others(folder))
    for path in reversed(found):
        path.chmod(path.lstat().st_mode & ~OTHERS & 0o7777)
    return len(found)


def closing_command(folder: Path) -> str:
    """Return what to type so that nobody else can read `folder`."""
    return f"chmod -R go-rwx {shlex.quote(str(folder))}"
