"""What a raw file of any maker gives: samples in g, piece by piece."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, NamedTuple, TypeAlias, cast

from healthfm_core.arrays import Float32, Int64

BROKEN: Final = (OSError, EOFError, zlib.error)
"""What reading a file ends in where it is cut off or its compression is damaged."""


class Samples(NamedTuple):
    """Some samples of a file.

    Attributes:
        time_us: [N] µs since 1970, by the device's clock.
        g: [N, 3] acceleration along x, y and z, in units of gravity.
        hz: How many there are in a second.
    """

    time_us: Int64
    g: Float32
    hz: float


@dataclass
class Damage:
    """What of a file could not be read.

    Attributes:
        blocks: Blocks, pages or records that are damaged or of a kind that is not known.
        cut: Whether the file ends in the middle.
    """

    blocks: int = 0
    cut: bool = field(default=False)


SamplesOf: TypeAlias = Callable[[Path, Damage], Iterator[Samples]]
"""(file, what is damaged of it, which is filled in) → its samples, in order of time."""


def opened(file: Path) -> IO[bytes]:
    """Return a file as a stream of bytes, a compressed one's contents."""
    packed = file.name.lower().endswith(".gz")
    return cast("IO[bytes]", gzip.open(file)) if packed else file.open("rb")
