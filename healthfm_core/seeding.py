"""Randomness as an argument: every stream of random numbers is named, none is global."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_for(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream called `names` under the run's `seed`.

    The same names give the same stream on every machine and in every process, so that a site's
    batches in round 7 do not depend on which worker ran it or on which rounds ran before.
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return NumPy's generator for the stream `names`."""
    return np.random.default_rng(seed_for(seed, *names))


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU torch generator for the stream `names`."""
    return torch.Generator().manual_seed(seed_for(seed, *names))
