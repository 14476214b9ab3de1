"""Trains a few federations with every source of chance fixed and prints a hash of the weights.

Refactoring must not change what is computed: run it before and after, and compare.

    python -m tests.weight_hashes            # small cohorts, every path, two minutes
    python -m tests.weight_hashes --full     # the default cohort, two rounds, five minutes
    python -m tests.weight_hashes dp secure  # these cases alone

The noise of differential privacy comes from the operating system otherwise; here every generator
starts from the same key. What is left (keys and masks of secure sums) cancels out of the weights.
A hash does not depend on the names of parameters.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from healthfm_core.arrays import Arrays
from healthfm_core.config.compose import compose
from healthfm_core.privacy import discrete_gaussian, entropy
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.sites import REAL_DATA, prepare_sites

_ATTENTION_ALONE: Final = ("train=attention_alone", "train.local_epochs=0.4")
"""What the default cohort was trained with up to 0.2.0."""
FULL: Final[Mapping[str, tuple[str, ...]]] = {
    "default": _ATTENTION_ALONE,
    "dp": (*_ATTENTION_ALONE, "privacy=dp"),
    "secure": (*_ATTENTION_ALONE, "federation=secure"),
    "distributed": (*_ATTENTION_ALONE, "privacy=distributed"),
    "memory": (),
}
"""What the whole default cohort is trained with, two rounds each."""

_SIZE: Final = (
    "data.cohort.subjects=320",
    "data.cohort.held_out=0.15",
    "tokens.k_min=5",
    "train.max_steps=6",
    "data.cohort.label_shift=1.0",
)
_SMALL: Final = (*_ATTENTION_ALONE, *_SIZE)
_OBJECTIVES: Final = (
    "train.objectives.next_visit=1.0",
    "train.objectives.time_to_event=0.5",
    "train.objectives.masked_reconstruction=0.5",
    "train.objectives.next_event=0.5",
    "train.objectives.predictive_coding=0.3",
    "train.objectives.cross_modal=0.3",
)
SMALL: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: (*_SIZE, *given) for name, given in FULL.items()},
    "memory_dp": (*_SIZE, "privacy=dp"),
    "memory_secure": (*_SIZE, "federation=secure"),
    "objectives": (*_SMALL, *_OBJECTIVES, "train.curriculum=staged"),
    "objectives_dp": (*_SMALL, *_OBJECTIVES, "privacy=dp"),
    "objectives_secure": (*_SMALL, *_OBJECTIVES, "federation=secure"),
    "dp_hooks": (*_SMALL, "privacy=dp", "privacy.grad_sample=hooks"),
    "secure_noise": (*_SMALL, "federation=secure", "federation.aggregation.secure.epsilon=8"),
    "median": (*_SMALL, "federation=median"),
    "krum": (*_SMALL, "federation=krum"),
    "adam": (*_SMALL, "federation=adam"),
    "scaffold": (*_SMALL, "federation=scaffold"),
    "prox": (*_SMALL, "train.fedprox_mu=0.01"),
    "shared": (*_SMALL, "federation.aggregation.groups=shared"),
    "their_sites": (*_SMALL, "federation.aggregation.code_rows=their_sites"),
    "fusion": (*_SMALL, "model.genomics_fusion=late", "model.sum_pooling=true"),
    "cross_attention": (*_SMALL, "model.genomics_fusion=cross_attention", "model.floor=true"),
    "adapters": (*_SMALL, "model.adapter_rank=2", "train.trainable=adapters"),
    "dropout": (*_SMALL, "model.dropout=0.2", "train.drop_ehr=0.1", "train.drop_events=0.1"),
    "icu": ("data=physionet2012", "train.max_steps=3", "train.trainable=all"),
    "icu_distributed": (
        "data=physionet2012",
        "privacy=distributed",
        "train.trainable=linear_logit",
    ),
    "icu_dp": (
        "data=physionet2012",
        "privacy=dp",
        "train.trainable=linear_logit",
        "train.max_steps=3",
    ),
    "eicu": ("data=eicu_demo", "train.max_steps=3"),
    "nhanes": ("data=nhanes", "train.max_steps=3"),
}
"""Short trainings that between them go through every path; some on real records."""


def main() -> None:
    """Print a line per case: its name, the hash of its weights, seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("cases", nargs="*")
    given = parser.parse_args()
    cases = FULL if given.full else SMALL
    if not REAL_DATA.is_dir():
        cases = {name: keys for name, keys in cases.items() if "data=" not in "".join(keys[:1])}
    fix_noise()
    torch.set_num_threads(1)
    for name in given.cases or cases:
        started = time.monotonic()
        found = weights_of(cases[name])
        sys.stdout.write(f"{name:18s} {hash_of(found)}  {time.monotonic() - started:.0f} s\n")
        sys.stdout.flush()


def fix_noise() -> None:
    """Give every generator of noise the same key, so that noise is the same in every run."""

    class Keyed(entropy.Entropy):
        def __init__(self) -> None:
            count = iter(range(1 << 30))
            super().__init__(lambda n: hashlib.shake_256(b"%d" % next(count)).digest(n))

    class Fixed:
        @staticmethod
        def urandom(count: int) -> bytes:
            return hashlib.shake_256(b"discrete").digest(count)

    for module in _with_entropy():
        module.Entropy = Keyed  # type: ignore[attr-defined]
    discrete_gaussian.os = Fixed  # type: ignore[attr-defined]


def _with_entropy() -> list[Any]:
    import healthfm_client.app  # noqa: F401, every module that draws noise is loaded by it

    ours = [module for name, module in sys.modules.items() if name.startswith("healthfm_")]
    return [module for module in ours if getattr(module, "Entropy", None) is entropy.Entropy]


def weights_of(overrides: tuple[str, ...]) -> Arrays:
    """Return the weights after two rounds over the cohort's sites."""
    config = compose(["rounds=2", *overrides])
    with tempfile.TemporaryDirectory() as folder:
        sites = prepare_sites(config, Path(folder) / "sites")
        nodes = [NodeSpec(site.name, ((site.path, site.modalities),)) for site in sites]
        result = run_federation(config, nodes, Path(folder) / "run")
        return {name: array.copy() for name, array in result.parameters.items()}


def hash_of(weights: Arrays) -> str:
    """Return 16 hex digits over the arrays' bytes and shapes, whatever their names."""
    each = sorted(
        hashlib.sha256(repr(array.shape).encode() + array.tobytes()).digest()
        for array in weights.values()
    )
    return hashlib.sha256(b"".join(each)).hexdigest()[:16]


if __name__ == "__main__":
    main()
