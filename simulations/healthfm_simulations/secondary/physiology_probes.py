"""What frozen states hold of the body: ridge probes of worn channels, read or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from healthfm_core.arrays import Float32
from healthfm_core.config import RunConfig
from healthfm_core.evaluation import MetricRow
from healthfm_core.evaluation.analyses.physiology import QuantityData, ridge_probe
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.secondary.state_probes import VisitStates

OF_LAST_DAY: Final = ", mean of the last day (an input)"
HIDDEN: Final = ", mean of the last day, wearing hidden"
TO_COME: Final = ", mean of the day before the next visit"
"""Behind a channel's name, in the rows of `physiology`."""

SPLITS: Final = ("train", "tuning", "test")


def physiology(
    states: Mapping[str, Mapping[str, VisitStates]],
    hidden: Mapping[str, Mapping[str, VisitStates]],
    channels: Sequence[str],
    config: RunConfig,
) -> list[MetricRow]:
    """Return ridge probes of each channel's mean over a day worn, for every arm.

    Of the last day, which the model has read: what a state keeps of its input, and called so. Of
    the same day from states that were shown none of the wearing. Of the day worn before the next
    visit, which is no input of either.

    Args:
        states: Arm → train, tuning, test.
        hidden: The same queries' states where no wearing was shown.
        channels: The H channels.
        config: The run's configuration.
    """
    return [
        row
        for arm in states
        for place, channel in enumerate(channels)
        for row in _of_channel(arm, states[arm], hidden[arm], channel, place, config)
    ]


def _of_channel(
    arm: str,
    states: Mapping[str, VisitStates],
    hidden: Mapping[str, VisitStates],
    channel: str,
    place: int,
    config: RunConfig,
) -> Iterator[MetricRow]:
    asked = {
        OF_LAST_DAY: [_measured(states[n], states[n].worn, place) for n in SPLITS],
        HIDDEN: [_measured(hidden[n], hidden[n].worn, place) for n in SPLITS],
        TO_COME: [_measured(states[n], states[n].worn_next, place) for n in SPLITS],
    }
    for what, (train, tuning, test) in asked.items():
        yield from ridge_probe(
            train,
            tuning,
            test,
            arm=arm,
            target=f"{channel}{what}",
            bootstraps=config.evaluation.bootstraps,
            rng=numpy_generator(config.seed, "bootstrap"),
        )


def _measured(states: VisitStates, worn: Float32, place: int) -> QuantityData:
    value = worn[:, place] if worn.shape[1] else np.full(len(states.x), np.nan)
    return QuantityData(states.x.astype(np.float64), value.astype(np.float64), states.subject)
