"""A whole training step under every implementation of the attention: tokens/s, attention's share.

    python benchmarks/step.py [--device cpu] [--sizes demo] [--lengths 256 1024]
                              [--batch-tokens 2048] [--threads 1] [--repeats 5]

The step is a site's with train=multitask: a batch of each kind of row that the objectives read,
their losses, backward, clipping, AdamW; loading is left out. Rows are generated people with visits,
wearing and scores, whose history fills `length`; a query adds up to 16 tokens, and rows of
time-to-event end at a random visit. Tokens are counted without padding. On a CUDA device (bf16
autocast) the sizes are small and paper; an implementation that runs out of its memory is left out.

All implementations take turns in one process with one model, so that they see the same machine; the
ratio is the median over the repeats of the step's time over that of the installed implementation.
The share of attention, forward and backward, is 1 − free / step, also a median over the repeats:
`free` runs the same step with a stand-in that only fills outputs and gradients of the right shapes
with zeros. A profiler would have to pick the eager form's operations out by hand, and would charge
a GPU's kernels with time that overlaps. Writes results/step.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from loader import FEATURES, SCORES, TARGETS, WINDOWS, generate
from torch import Tensor

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import BatchLoader, Query
from healthfm_core.kernels.ct_attention import ops, reference
from healthfm_core.kernels.ct_attention.cpu import tiles
from healthfm_core.kernels.ct_attention.inputs import Inputs, empty_output
from healthfm_core.models import HealthFM, ModelShape, backbone
from healthfm_core.objectives import heads_for
from healthfm_core.training.optimizer import optimizer_for
from healthfm_core.training.passes import losses, passes_for, queries_for

RESULTS = Path(__file__).parent / "results"
SIZES = {"cpu": ["demo"], "cuda": ["small", "paper"]}
BATCH_TOKENS = {"cpu": 2048, "cuda": 8192}
VOCABULARY = 2000
FREE, EAGER = "free", "eager"
EAGER_REPEATS = 2

Arms = Mapping[str, Callable[[], AbstractContextManager[Any]]]


class Free(torch.autograd.Function):
    """Attention at no cost: zeros, laid out as the implementations lay out what they return."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        """Return zeros for the output."""
        ctx.save_for_backward(*tensors)
        return empty_output(tensors[0]).zero_()

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """Return zeros for the gradients."""
        x = Inputs(*ctx.saved_tensors)
        wide = (empty_output(part).zero_() for part in (x.q_BHQD, x.k_BHTD, x.v_BHTD))
        rates, weights = (torch.zeros_like(part) for part in (x.rates_BHR, x.weights_BHR))
        return (*wide, None, None, None, None, rates, weights)


def free(*tensors: Tensor, variant: str) -> Tensor:
    """Stand in for `ct_attention`."""
    return Free.apply(*tensors)


def installed(device: str) -> str:
    """Return the name of the implementation that a step uses on this device."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return ops.implementation(torch.device(device), dtype)


def arms(device: str) -> Arms:
    """Return, by name, what puts each attention in the model's way."""
    return {
        FREE: lambda: patch.object(backbone, "ct_attention", free),
        "tiles in PyTorch": lambda: patch.object(ops, "_serving", lambda q: tiles),
        installed(device): nullcontext,
        EAGER: lambda: patch.object(backbone, "ct_attention", reference.ct_attention),
    }


def model_of(config: RunConfig) -> HealthFM:
    """Return a model of every modality with the heads of the configured objectives."""
    all_three = ("ehr", "wearable", "genomics")
    heads = heads_for(config.train.objectives, all_three)
    shape = ModelShape(
        tokens=VOCABULARY,
        codes=VOCABULARY,
        mask_token=2,
        targets=TARGETS,
        panel=tuple(f"PGS{i}" for i in range(SCORES)),
        windows=WINDOWS,
        features=FEATURES,
        pieces=len(config.train.horizons_days),
        channels=1,
        cross_horizons=len(config.train.cross_horizons_days),
    )
    return HealthFM(config.model, shape, encoders=all_three, heads=heads).train()


def batches_of(config: RunConfig, length: int, rows: int, device: str) -> dict[Query, Batch]:
    """Return a batch of each kind of row, on the device."""
    loader = BatchLoader(
        generate(rows, length + length // 4, np.random.default_rng(0)),
        config.tokens.model_copy(update={"max_len": length}),
        n_targets=TARGETS,
        windows=WINDOWS,
        features=FEATURES,
        soft_tokens={"genomics": config.model.prs_tokens},
    )
    rng = np.random.default_rng(1)
    found = {
        q: next(loader.epoch(rng, batch_size=rows, query=q)) for q in queries_for(config.train)
    }
    return {query: batch.to(torch.device(device)) for query, batch in found.items()}


def step_of(config: RunConfig, batches: Mapping[Query, Batch], device: str) -> Callable[[], None]:
    """Return a function that makes one step and waits for its end."""
    torch.manual_seed(0)
    model = model_of(config).to(device)
    optimizer = optimizer_for(model, config.train)
    masks = torch.Generator()
    every = passes_for(config.train)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for query, batch in batches.items():
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                passes = [part for part in every if part.query == query]
                found = losses(model, batch, passes, config.train, masks)
            (found.per_subject.sum() / batch.size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def seconds_of(step: Callable[[], None], attentions: Arms, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of a step under each attention, an entry per repeat."""
    found: dict[str, list[float]] = {name: [] for name in attentions}
    for repeat in range(repeats + 1):
        for name in list(found):
            if name == EAGER and repeat > EAGER_REPEATS:
                continue
            begun = time.perf_counter()
            try:
                with attentions[name]():
                    step()
            except torch.OutOfMemoryError:
                del found[name]
                continue
            if repeat:
                found[name].append(time.perf_counter() - begun)
    return found


def row_of(name: str, ours: str, seconds: Mapping[str, list[float]], tokens: int) -> dict[str, Any]:
    """Return one line of the result."""
    own = seconds[name]
    ratios = [one / other for one, other in zip(own, seconds[ours], strict=False)]
    shares = [1 - other / one for one, other in zip(own, seconds[FREE], strict=False)]
    return {
        "implementation": name,
        "ms": 1e3 * statistics.median(own),
        "tokens_per_s": tokens / statistics.median(own),
        "ratio": statistics.median(ratios),
        "attention_share": statistics.median(shares),
    }


def measure(size: str, length: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a line per attention for one size of model and one length of row."""
    config = compose([f"model={size}", "train=multitask", "train.lr=1e-6"])
    batches = batches_of(config, length, max(1, given.batch_tokens // length), given.device)
    tokens = sum(int((batch.kind > 0).sum()) for batch in batches.values())
    step = step_of(config, batches, given.device)
    seconds = seconds_of(step, arms(given.device), given.repeats)
    about = {"size": size, "length": length, "tokens": tokens, "rows": batches["sep"].size}
    return [about | row_of(name, installed(given.device), seconds, tokens) for name in seconds]


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    for row in rows:
        print(
            f"{row['size']:6s} {row['rows']:3d} rows of {row['length']:5d}  "
            f"{row['implementation']:18s} {row['ms']:9.1f} ms {row['tokens_per_s']:11,.0f} "
            f"tokens/s {row['ratio']:6.2f} x   attention {row['attention_share']:4.0%}"
        )


def main() -> None:
    """Measure, print, write."""
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=SIZES, default=here)
    parser.add_argument("--sizes", nargs="+")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    given.batch_tokens = given.batch_tokens or BATCH_TOKENS[given.device]
    torch.set_num_threads(given.threads)
    rows: list[dict[str, Any]] = []
    for size in given.sizes or SIZES[given.device]:
        for length in given.lengths:
            found = measure(size, length, given)
            show(found)
            rows += found
    RESULTS.mkdir(exist_ok=True)
    told = {"device": given.device, "threads": given.threads, "rows": rows}
    (RESULTS / "step.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
