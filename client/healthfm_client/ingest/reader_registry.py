"""The readers there are: every module of `readers` that has a `READER`."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path

import healthfm_client.ingest.readers as package
from healthfm_client.ingest.reader_interface import Reader
from healthfm_core.errors import IngestError

AUTO = "auto"
"""In place of a reader's name: whichever recognises the path."""


@cache
def readers() -> dict[str, Reader]:
    """Return name → reader, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    modules = [import_module(f"{package.__name__}.{name}") for name in names]
    registered = [
        module.READER for module in modules if isinstance(vars(module).get("READER"), Reader)
    ]
    return {reader.name: reader for reader in registered}


def find(source: str, path: Path) -> Reader:
    """Return the reader called `source`, or for ``auto`` the one that recognises `path`.

    Raises:
        IngestError: HF-301 where `path` does not exist, HF-302 where no reader, or more than one,
            fits.
    """
    if not path.exists():
        raise IngestError(301, where=path.name, seen="there is no such file or folder")
    known = readers()
    fitting = [r for r in known.values() if r.sniff(path)] if source == AUTO else []
    reader = fitting[0] if len(fitting) == 1 else known.get(source)
    if reader is None:
        fits = ", ".join(r.name for r in fitting)
        raise IngestError(
            302,
            where=path.name if source == AUTO else source,
            seen=f"{fits} all recognise it" if fits else "no reader fits",
            wanted=f"one of {', '.join(known)} is wanted",
        )
    return reader
