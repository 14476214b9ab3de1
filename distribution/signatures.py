"""Checksums of a folder's files, and their signature by OpenSSH: docs/decisions/0070."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Final

SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = f"{SUMS}.sig"
NAMESPACE: Final = "healthfm"
"""What a signature is for: one made for something else, as for mail, does not count."""


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> Path:
    """Write SHA256SUMS over every file below `folder`, as ``sha256sum --check`` reads it."""
    kept = {folder / SUMS, folder / SIGNATURE}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in kept)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), "utf-8")
    return folder / SUMS


def sign(sums: Path, key: Path) -> Path:
    """Sign `sums` with an OpenSSH key, or with the agent's where `key` is a public one.

    Raises:
        subprocess.CalledProcessError: ssh-keygen refused; it has said why.
    """
    signature = sums.with_name(SIGNATURE)
    signature.unlink(missing_ok=True)
    command = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE, str(sums)]
    subprocess.run(command, check=True)
    return signature
