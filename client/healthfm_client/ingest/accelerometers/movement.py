"""Samples of acceleration to what a window of time says of movement: milli-g, less gravity.

The definition is UK Biobank's (Doherty et al. 2017, PLoS ONE 12:e0169649): below 20 Hz, calibrated
to gravity where the record allows it, the vector's length less 1 g and not under 0, stretches of an
hour and more in which nothing moved left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from scipy import signal

from healthfm_client.ingest.accelerometers.raw_file import Samples
from healthfm_core.arrays import Bool, Float32, Float64, Int64
from healthfm_core.data.store.wearables import SECOND_US

PIECE_US: Final = 10 * SECOND_US
"""What is looked at for stillness, and what windows are made of."""
STILL_G: Final = 0.013
"""Standard deviation along each axis of a device that does not move."""
NOT_WORN: Final = 360
"""PieceSums without any movement, one after the other, after which nobody wears it."""
_LOWPASS_HZ: Final = 20.0
_ORDER: Final = 4
_FEWEST: Final = 30
"""Samples of a piece that is filtered."""
_SPREAD_G: Final = 0.3
_STILL_PIECES: Final = 50
_ROUNDS: Final = 1000
_ENOUGH: Final = 1e-7
_GOOD_G: Final = 0.01


class Calibration(NamedTuple):
    """What makes of a device's g those of gravity: g · scale + offset.

    Attributes:
        scale: [3] of each axis.
        offset: [3] in g.
        found: Whether the record allowed to find it.
    """

    scale: Float64
    offset: Float64
    found: bool


AS_IT_IS: Final = Calibration(np.ones(3), np.zeros(3), False)


@dataclass(frozen=True)
class PieceSums:
    """Ten seconds each, in order of time.

    Attributes:
        at: [M] tens of seconds since 1970.
        count: [M] samples.
        sums: [M, C] of each column that was added up.
    """

    at: Int64
    count: Int64
    sums: Float64

    @property
    def mean(self) -> Float64:
        """[M, C]."""
        return np.asarray(self.sums / self.count[:, None], np.float64)


def sums_of_pieces(parts: Iterable[tuple[Int64, Float64]], columns: int) -> PieceSums:
    """Return the sums of ten seconds each.

    Args:
        parts: ([N] µs, [N, columns] values) of each part.
        columns: How many there are.
    """
    found = [
        PieceSums(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, columns))),
        *(_sums(time // PIECE_US, np.ones(len(time), np.int64), of) for time, of in parts),
    ]
    at, count = (np.concatenate([getattr(one, name) for one in found]) for name in ("at", "count"))
    return _sums(at, count, np.concatenate([one.sums for one in found]))


def _sums(at: Int64, count: Int64, values: Float64) -> PieceSums:
    pieces, row = np.unique(at, return_inverse=True)
    size = len(pieces)
    sums = [np.bincount(row, weights=column, minlength=size) for column in values.T]
    counts = np.bincount(row, weights=count, minlength=size).astype(np.int64)
    return PieceSums(pieces, counts, np.stack(sums, axis=1))


def moments(samples: Samples) -> tuple[Int64, Float64]:
    """Return ([N] µs, [N, 6] g and its square), of which `calibration` is found."""
    g = samples.g.astype(np.float64)
    return samples.time_us, np.concatenate([g, g * g], axis=1)


def still(pieces: PieceSums) -> Bool:
    """Return [M] where nothing moved, of pieces of `moments`."""
    mean = pieces.mean
    variance = np.maximum(mean[:, 3:] - mean[:, :3] ** 2, 0)
    return np.asarray((np.sqrt(variance) < STILL_G).all(1) & (pieces.count > 1), np.bool_)


def calibration(pieces: PieceSums, where: Bool) -> Calibration:
    """Return what brings the still pieces to 1 g (van Hees et al. 2014, J Appl Physiol 117:738).

    It is found where the device lay in many positions: beyond ±0.3 g along each axis.
    """
    g = pieces.mean[where, :3]
    spread = (
        len(g) >= _STILL_PIECES and (g.min(0) < -_SPREAD_G).all() and (g.max(0) > _SPREAD_G).all()
    )
    if not spread:
        return AS_IT_IS
    scale, offset = np.ones(3), np.zeros(3)
    for _ in range(_ROUNDS):
        now = g * scale + offset
        length = np.maximum(np.linalg.norm(now, axis=1), 1e-6)
        weight = np.minimum(1 / np.maximum(np.abs(length - 1), 1e-6), 100)
        slope, constant = _fitted(now, now / length[:, None], weight)
        scale, offset = scale * slope, offset * slope + constant
        if np.abs(slope - 1).max() + np.abs(constant).max() < _ENOUGH:
            break
    before, after = _error(g), _error(g * scale + offset)
    sound = np.isfinite(after) and after < min(before, _GOOD_G) and (scale > 0.5).all()
    return Calibration(scale, offset, True) if sound and (scale < 2).all() else AS_IT_IS


def _fitted(x: Float64, y: Float64, weight: Float64) -> tuple[Float64, Float64]:
    """Return ([3] slope, [3] constant) of the weighted line through each axis' points."""
    share = (weight / weight.sum())[:, None]
    middle, target = (share * x).sum(0), (share * y).sum(0)
    across = (share * (x - middle) ** 2).sum(0)
    slope = (share * (x - middle) * (y - target)).sum(0) / np.maximum(across, 1e-12)
    return slope, target - slope * middle


def _error(g: Float64) -> float:
    return float(np.abs(np.linalg.norm(g, axis=1) - 1).mean())


def movement(samples: Samples, by: Calibration) -> tuple[Int64, Float64]:
    """Return ([N] µs, [N, 1] milli-g of movement) of samples in order."""
    g = _below(samples.g, samples.hz) * by.scale + by.offset
    milli_g = np.maximum(np.linalg.norm(g, axis=1) - 1, 0) * 1000
    return samples.time_us, milli_g[:, None]


def _below(g: Float32, hz: float) -> Float64:
    """Return the part below 20 Hz, without a shift in time."""
    if hz <= 2 * _LOWPASS_HZ or len(g) < _FEWEST:
        return g.astype(np.float64)
    form = signal.butter(_ORDER, _LOWPASS_HZ, fs=hz, output="sos")
    return np.asarray(signal.sosfiltfilt(form, g, axis=0, padlen=min(27, len(g) - 1)), np.float64)


def worn(at: Int64, where_still: Bool) -> Bool:
    """Return [M] where somebody wore it: not in an hour and more without any movement.

    Args:
        at: [M] tens of seconds, ascending.
        where_still: [M] see `still`.
    """
    breaks = np.ones(len(at), np.bool_)
    breaks[1:] = (np.diff(at) != 1) | (where_still[1:] != where_still[:-1])
    run = np.cumsum(breaks) - 1
    long = np.bincount(run) >= NOT_WORN
    return np.asarray(~(where_still & long[run]), np.bool_)


def windows(pieces: PieceSums, where: Bool, every_us: int) -> tuple[Int64, Float64]:
    """Return ([W] µs where windows begin, [W] mean milli-g of the samples in each)."""
    kept = PieceSums(pieces.at[where], pieces.count[where], pieces.sums[where])
    found = _sums(kept.at * PIECE_US // every_us, kept.count, kept.sums)
    return found.at * every_us, found.mean[:, 0]
