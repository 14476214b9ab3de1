"""Which subject is used for what: a keyed hash of the id, so that nobody moves on re-ingestion."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Float64, Int64, Text, UInt64
from healthfm_core.data.store.schemas import HELD_OUT, TRAIN, TUNING

DEFAULT_SHARES: Final[Mapping[str, float]] = {TRAIN: 0.70, TUNING: 0.15, HELD_OUT: 0.15}
DEFAULT_KEY: Final = "healthfm"


def mix(x: UInt64) -> UInt64:
    """Scramble 64-bit words one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keyed_uniform(subject_id: Int64, key: str) -> Float64:
    """Return a number in [0, 1) per subject that depends on the id and `key` alone.

    It spreads subjects evenly and is no protection: who knows the key can repeat it.
    """
    words = np.frombuffer(hashlib.sha256(key.encode()).digest()[:16], dtype="<u8").astype(np.uint64)
    hashed = mix(mix(subject_id.astype(np.uint64) ^ words[0]) + words[1])
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def assign(
    subject_id: Int64,
    *,
    key: str = DEFAULT_KEY,
    shares: Mapping[str, float] = DEFAULT_SHARES,
) -> Text:
    """Return the split of each subject.

    Args:
        subject_id: [S] ids; the answer for one does not depend on which others are asked about.
        key: Another key, another partition.
        shares: Split → share of the subjects; made to sum to 1.
    """
    names = np.array(list(shares))
    edges = np.cumsum(list(shares.values()))
    chosen = np.searchsorted(edges / edges[-1], keyed_uniform(subject_id, key), side="right")
    return names[np.minimum(chosen, len(names) - 1)]


def shares_with(held_out: float) -> dict[str, float]:
    """Return the splits' shares where `held_out`, in (0, 1), are held out.

    Training and tuning people share the rest as they do by default. Who is held out of a smaller
    share is held out of every larger one.
    """
    others = DEFAULT_SHARES[TRAIN] + DEFAULT_SHARES[TUNING]
    return {**DEFAULT_SHARES, HELD_OUT: others * held_out / (1 - held_out)}


def keeps_label(subject_id: Int64, *, share: float, seed: int) -> Bool:
    """Return [S] whose labels are used where only a `share` of the training people have any.

    Whoever is among a share is among every larger one of the same seed.
    """
    return keyed_uniform(subject_id, f"labels/{seed}") < share


def split_table(subject_id: Int64, split: Text) -> pa.Table:
    """Return MEDS's subject_splits table, sorted by subject."""
    order = np.argsort(subject_id, kind="stable")
    return pa.table(
        {
            "subject_id": pa.array(subject_id[order], pa.int64()),
            "split": pa.array(split[order].tolist(), pa.string()),
        }
    )
