"""Sums by key in a table of fixed size that adds up: what a secure sum of lists with gaps needs.

An invertible Bloom lookup table (Goodrich and Mitzenmacher, Allerton 2011) whose cells are sums in
the ring of 2^64. A site adds each of its entries (three words of key, some words of value) to three
cells that a public hash of the key names; tables of sites add up cell by cell. A cell that holds
one key alone, from however many sites, gives it away: every word of it is that many times the
key's, and a check word proves it. The key is then taken out of its other two cells, which may leave
one alone there, and so on until the table is empty.

With 1.4 cells for each distinct key this ends with all of them, but for chances that vanish as
tables grow; where it does not, `entries` says so and another salt is tried. Nothing but the sums is
in the table: which site brought a key is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Int64, UInt32, UInt64
from healthfm_core.errors import ProtocolError

WORD_BITS: Final = 48
"""A key's word is below 2^48, so that 2^16 sites' sum of it does not wrap."""

_HEAD: Final = 5
"""Words of a cell before the values: sites, check, three of key."""
_PARTS: Final = 3
_ROOM: Final = 1.4
_LEAST: Final = 24
_MIX: Final = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True)
class Entries:
    """What a table holds.

    Attributes:
        key: [E, 3] words of the keys, sorted, each key once.
        sites: [E] sites that brought the key.
        value: [E, words] sums of their values.
    """

    key: UInt64
    sites: UInt64
    value: UInt64


@dataclass(frozen=True)
class InvertibleBloomTable:
    """The layout of a table.

    Attributes:
        cells: Cells of each of the three parts.
        words: Words of a value.
        salt: Of the hash; public, another one for another try.
    """

    cells: int
    words: int
    salt: int

    @classmethod
    def for_keys(cls, keys: int, words: int, salt: int) -> InvertibleBloomTable:
        """Return a table with room for about `keys` distinct keys."""
        return cls(math.ceil(_ROOM * keys / _PARTS) + _LEAST, words, salt)

    @property
    def size(self) -> int:
        """Words of the whole table."""
        return _PARTS * self.cells * (_HEAD + self.words)

    def fill(self, key: UInt64, value: UInt64) -> UInt64:
        """Return the flat table of one site's entries.

        Args:
            key: [E, 3] words below 2^48, each key once.
            value: [E, words].
        """
        ones = np.ones((len(key), 1), np.uint64)
        rows = np.concatenate([ones, self._check(key)[:, None], key, value], axis=1)
        table = np.zeros((_PARTS * self.cells, rows.shape[1]), np.uint64)
        for place in self._places(key).T:
            np.add.at(table, place, rows)
        return table.reshape(-1)

    def entries(self, flat: UInt64) -> Entries:
        """Return what a sum of tables holds.

        Raises:
            ProtocolError: The table is too full, or no sum of tables of this layout (HF-402).
        """
        table = flat.reshape(_PARTS * self.cells, _HEAD + self.words).copy()
        peeled: list[UInt64] = []
        while len(alone := self._alone(table)):
            peeled.append(alone)
            self._take_out(table, alone)
        if table.any():
            raise _too_full()
        rows = np.concatenate(peeled) if peeled else table[:0]
        key = rows[:, 2:_HEAD] // rows[:, :1]
        order = np.lexsort(key.T[::-1])
        return Entries(key[order], rows[order, 0], rows[order, _HEAD:])

    def _alone(self, table: UInt64) -> UInt64:
        """Return the rows of cells that hold one key alone, each key once."""
        cells = np.flatnonzero(table[:, 0])
        rows = table[cells]
        head, sites = rows[:, 1:_HEAD], rows[:, :1]
        whole = (head % sites == 0).all(axis=1)
        cells, rows = cells[whole], rows[whole]
        key = rows[:, 2:_HEAD] // rows[:, :1]
        fits = (key < 1 << WORD_BITS).all(axis=1)
        fits &= rows[:, 1] // rows[:, 0] == self._check(key)
        fits &= (self._places(key) == cells[:, None]).any(axis=1)
        _, first = np.unique(key[fits], axis=0, return_index=True)
        return np.asarray(rows[fits][first])

    def _take_out(self, table: UInt64, rows: UInt64) -> None:
        key = rows[:, 2:_HEAD] // rows[:, :1]
        for place in self._places(key).T:
            np.subtract.at(table, place, rows)

    def _places(self, key: UInt64) -> Int64:
        """Return [E, 3] one cell in each part."""
        hashes = [self._hash(key, part) % np.uint64(self.cells) for part in range(_PARTS)]
        within = np.stack(hashes, axis=1).astype(np.int64)
        return within + np.arange(_PARTS) * self.cells

    def _check(self, key: UInt64) -> UInt64:
        return self._hash(key, _PARTS) >> np.uint64(64 - WORD_BITS)

    def _hash(self, key: UInt64, purpose: int) -> UInt64:
        start = np.uint64((self.salt * 4 + purpose) & (2**64 - 1))
        state = np.full(len(key), start, np.uint64)
        for word in key.T:
            state = _mix(state ^ _mix(word))
        return state


def occupied(key: UInt64, bins: int, salt: int) -> UInt32:
    """Return [bins] 1 where one of a site's keys falls, 0 elsewhere; sites' vectors add up."""
    marks = np.zeros(bins, np.uint32)
    places = InvertibleBloomTable(bins, 0, salt)._hash(key, 0) % np.uint64(bins)
    marks[places.astype(np.int64)] = 1
    return marks


def distinct(total: UInt32) -> int:
    """Return about how many distinct keys all sites have (linear counting, Whang et al. 1990).

    Args:
        total: Sum of the sites' `occupied`.

    Raises:
        ProtocolError: There are too many keys to be counted (HF-402).
    """
    bins, empty = len(total), int((total == 0).sum())
    if not empty:
        raise _too_full()
    return math.ceil(bins * math.log(bins / empty))


def _mix(key: UInt64) -> UInt64:
    """SplitMix64's finaliser."""
    z = key + np.uint64(_MIX[0])
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX[1])
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX[2])
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def _too_full() -> ProtocolError:
    return ProtocolError(
        402,
        where="federated statistics",
        seen="a table of sums that cannot be read back",
        wanted="as many cells as the sites' keys need",
        do="Ask again with another salt; raise tokens.k_min where sites have too many rare codes",
    )
