"""When tests of the compiled attention can run, and a way to put another library in its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from healthfm_core.kernels.ct_attention.cpu import compiled

COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)

needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="nothing could be compiled: no C++ compiler on this machine"
)
"""With a compiler these tests run, and fail where the install left the library out."""


@pytest.fixture
def use_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """A function that makes `compiled` load another file until the test ends."""

    def use(file: Path) -> None:
        monkeypatch.setattr(compiled, "LIBRARY", file)
        forget()

    yield use
    monkeypatch.undo()
    forget()


def forget() -> None:
    compiled._loaded.cache_clear()
    compiled.why_absent.cache_clear()
