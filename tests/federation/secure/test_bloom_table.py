"""Tables of sums by key: what goes in at the sites comes out of their sum."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healthfm_core.errors import ProtocolError
from healthfm_core.federation.secure.bloom_table import (
    Entries,
    InvertibleBloomTable,
    distinct,
    occupied,
)


def keys(numbers) -> np.ndarray:
    """Keys whose words are all different."""
    n = np.array(sorted(numbers), np.uint64).reshape(-1, 1)
    return np.concatenate([n, n * 7 % 2**48, n % 3], axis=1)


def read_back(sites, size: int, salt: int) -> Entries:
    """Ask as the coordinator does: a table that cannot be read back comes under another salt.

    One in a hundred cannot: two keys share all their cells.
    """
    for again in range(8):
        table = InvertibleBloomTable.for_keys(size, 2, salt + again)
        total = np.zeros(table.size, np.uint64)
        for i, mine in enumerate(sites, start=1):
            mine_keys = keys(mine)
            value = np.stack([mine_keys[:, 0], np.full(len(mine), i, np.uint64)], axis=1)
            total += table.fill(mine_keys, value)
        with suppress(ProtocolError):
            return table.entries(total)
    raise AssertionError("eight tables in a row could not be read back")


@given(
    st.lists(st.sets(st.integers(0, 2**48 - 1), max_size=60), min_size=1, max_size=6),
    st.integers(0, 2**63),
)
@settings(max_examples=40)
def test_the_sum_of_tables_holds_every_key_once_with_its_sums(sites, salt) -> None:
    union = sorted(set().union(*sites))
    found = read_back(sites, len(union), salt)
    assert found.key[:, 0].tolist() == union
    assert found.sites.tolist() == [sum(k in mine for mine in sites) for k in union]
    wanted = [sum(i for i, mine in enumerate(sites, 1) if k in mine) for k in union]
    assert found.value[:, 1].tolist() == wanted
    assert found.value[:, 0].tolist() == [
        k * n % 2**64 for k, n in zip(union, found.sites.tolist(), strict=True)
    ]


def test_ten_thousand_keys_of_a_hundred_sites_come_back() -> None:
    rng = np.random.default_rng(0)
    every = rng.choice(2**40, 10_000, replace=False)
    table = InvertibleBloomTable.for_keys(10_000, 1, 5)
    total = np.zeros(table.size, np.uint64)
    for _ in range(100):
        mine = keys(rng.choice(every, 2000, replace=False))
        total += table.fill(mine, np.ones((2000, 1), np.uint64))
    found = table.entries(total)
    assert (found.value[:, 0] == found.sites).all()
    assert found.sites.sum() == 200_000


@pytest.mark.parametrize("change", ["too full", "noise"])
def test_what_cannot_be_read_back_is_refused_not_guessed(change: str) -> None:
    table = InvertibleBloomTable.for_keys(10, 1, 5)
    flat = table.fill(
        keys(range(500 if change == "too full" else 10)),
        np.ones((500, 1), np.uint64) if change == "too full" else np.ones((10, 1), np.uint64),
    )
    if change == "noise":
        flat[3] += np.uint64(1)
    with pytest.raises(ProtocolError, match="HF-402"):
        table.entries(flat)


@pytest.mark.parametrize("n", [0, 1, 100, 30_000])
def test_distinct_keys_are_counted_within_a_twentieth(n: int) -> None:
    halves = [keys(range(n * 2 // 3)), keys(range(n // 3, n))]
    total = sum(occupied(half, 1 << 14, salt=3) for half in halves)
    assert distinct(total) == pytest.approx(n, rel=0.05, abs=2)
