"""A PostgreSQL of its own for a test or a benchmark: Debian's, on a socket, gone at the end."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PORT = 55432
USER = "reader"
"""Who owns the cluster; nothing but the socket lets anybody in."""


def binaries() -> Path | None:
    """Return the folder of ``initdb`` and ``postgres``, None where they are not installed."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve()] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return found[0].parent if found else None


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        folder: Of its data and its socket.
        bin: Of its programs.
    """

    folder: Path
    bin: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://{USER}@/postgres?host={self.folder}&port={PORT}"

    def run(self, sql: str) -> None:
        """Run SQL, or psql's own commands, as the owner."""
        where = ["-h", str(self.folder), "-p", str(PORT), "-U", USER, "-d", "postgres"]
        subprocess.run(
            [str(self.bin / "psql"), *where, "-q", "-v", "ON_ERROR_STOP=1"],
            input=sql,
            text=True,
            check=True,
            capture_output=True,
        )

    def load(self, table: str, columns: str, file: Path) -> None:
        """Make a table of a CSV file with a header, as `columns` says."""
        options = "format csv, header true"
        self.run(
            f"create table {table} ({columns});\n\\copy {table} from '{file}' with ({options})\n"
            f"analyze {table};"
        )


@contextmanager
def server() -> Iterator[Server]:
    """Start a server on a new, empty cluster; it is stopped and removed at the end."""
    programs = binaries()
    if programs is None:
        raise FileNotFoundError("PostgreSQL's server is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    owner = "nobody" if os.getuid() == 0 else getpass.getuser()  # it refuses to run as root
    account = pwd.getpwnam(owner)
    os.chown(folder, account.pw_uid, account.pw_gid)
    as_owner = {"user": account.pw_uid, "group": account.pw_gid} if os.getuid() == 0 else {}
    data, log = folder / "data", folder / "log"
    make = [programs / "initdb", "-D", data, "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8"]
    start = [programs / "pg_ctl", "-D", data, "-l", log, "-w", "-t", "120", "start", "-o"]
    listen = f"-k {folder} -p {PORT} -c listen_addresses= -c fsync=off"
    try:
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **as_owner)
        subprocess.run(
            [*start, listen], check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_owner
        )
        yield Server(folder, programs)
    finally:
        stop = [programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"]
        subprocess.run(stop, check=False, capture_output=True, cwd=folder, **as_owner)
        shutil.rmtree(folder, ignore_errors=True)
