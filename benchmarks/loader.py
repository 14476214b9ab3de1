"""Tokens per second that the loader turns into batches, on generated people.

    python benchmarks/loader.py [--subjects 4000] [--events 160] [--batch-size 32]

Counts tokens that are not padding per second of processor time, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.segments import offsets_of
from healthfm_core.data.batch.sequences import EVENT, STATIC, WEARABLE, Sequences

HOUR_US = 3_600_000_000
TARGETS, SCORES, WINDOWS, FEATURES = 256, 6, 4, 8
EVENTS_PER_VISIT, WORN = 10, 48


def generate(subjects: int, events: int, rng: np.random.Generator) -> Sequences:
    """Return people with about `events` events in visits of ten, and two days of wearing."""
    n_events = np.maximum(rng.poisson(events, subjects), 2 * EVENTS_PER_VISIT)
    n_items = n_events + WORN + 1
    offsets = offsets_of(n_items)
    subject = np.repeat(np.arange(subjects), n_items)
    within = np.arange(offsets[-1]) - offsets[subject]
    kind = np.where(within == 0, STATIC, np.where(within <= n_events[subject], EVENT, WEARABLE))
    visit = np.where(kind == EVENT, (within - 1) // EVENTS_PER_VISIT, -1)
    days = np.where(kind == EVENT, visit * 30, rng.integers(0, 30 * 12, len(kind)))
    time_us = np.where(kind == STATIC, 0, days * 24 * HOUR_US)
    order = np.lexsort((kind, time_us, kind != STATIC, subject))
    kind, visit, time_us = kind[order], visit[order], time_us[order]
    worn = kind == WEARABLE
    token = np.where(worn, 0, rng.integers(3, 2000, len(kind)))
    n_visits = (n_events - 1) // EVENTS_PER_VISIT + 1
    pairs = rng.integers(0, TARGETS, (int(n_visits.sum()), 4))
    n_worn = int(worn.sum())
    return Sequences(
        subject_id=np.arange(subjects),
        site=np.zeros(subjects, np.int32),
        birth_us=np.full(subjects, -40 * 365 * 24 * HOUR_US),
        offsets=offsets,
        kind=kind.astype(np.uint8),
        token=token.astype(np.int32),
        code=token.astype(np.int32),
        quantile=rng.random(len(kind), np.float32),
        spread=np.zeros((len(kind), 0), np.float32),
        has_value=kind == EVENT,
        time_us=time_us,
        visit=visit.astype(np.int32),
        wearable_row=np.where(worn, np.cumsum(worn) - 1, -1),
        wearable=rng.random((n_worn, WINDOWS, FEATURES), np.float32),
        wearable_mask=np.ones((n_worn, WINDOWS, FEATURES), np.bool_),
        panel=rng.random((subjects, SCORES), np.float32),
        panel_mask=np.ones((subjects, SCORES), np.bool_),
        panel_names=tuple(f"PGS{i}" for i in range(SCORES)),
        visit_offsets=offsets_of(n_visits),
        visit_time_us=(np.arange(n_visits.sum()) - np.repeat(offsets_of(n_visits)[:-1], n_visits))
        * (30 * 24 * HOUR_US),
        visit_target_offsets=np.arange(len(pairs) + 1) * 4,
        visit_target=np.sort(pairs, 1).ravel().astype(np.int32),
        label_subject=np.arange(subjects),
        label_time_us=np.full(subjects, 6 * 30 * 24 * HOUR_US),
        label_value=np.zeros(subjects, np.float32),
    )


def clinic_only(sequences: Sequences) -> Sequences:
    """Return the same people without wearables and scores."""
    keep = sequences.kind != WEARABLE
    subject = np.repeat(np.arange(sequences.n_subjects), np.diff(sequences.offsets))
    items = ("kind", "token", "code", "quantile", "has_value", "time_us", "visit", "wearable_row")
    return replace(
        sequences,
        **{name: getattr(sequences, name)[keep] for name in items},
        offsets=offsets_of(np.bincount(subject[keep], minlength=sequences.n_subjects)),
        panel_mask=np.zeros_like(sequences.panel_mask),
    )


def rate(batches: Iterable[Batch]) -> str:
    """Return tokens per processor second, mean row length and share of padding."""
    start, tokens, cells, rows = time.process_time(), 0, 0, 0
    for batch in batches:
        tokens += int((batch.kind != 0).sum())
        cells += batch.kind.numel()
        rows += batch.size
    seconds = time.process_time() - start
    return (
        f"{tokens / seconds / 1e6:6.2f} M tokens/s"
        f"   {tokens / rows:4.0f} tokens a row   {1 - tokens / cells:4.0%} padding"
    )


def main() -> None:
    """Print a line per set of modalities and query."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=4000)
    parser.add_argument("--events", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    everything = generate(options.subjects, options.events, np.random.default_rng(0))
    for name, people in (("clinic only", clinic_only(everything)), ("all three", everything)):
        loader = BatchLoader(
            people,
            TokensConfig(),
            n_targets=TARGETS,
            windows=WINDOWS,
            features=FEATURES,
            soft_tokens={"genomics": 4},
        )
        for query in ("sep", "now", "label"):
            rng = np.random.default_rng(1)
            found = rate(loader.epoch(rng, batch_size=options.batch_size, query=query))
            print(f"{name:12s} {query:6s} {found}")


if __name__ == "__main__":
    main()
