"""Polygenic scores as static rows ``PRS//<score>`` whose number is an ancestry-normalised z."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.arrays import Float64
from healthfm_core.data.store.events import coded, ids, repeated, static_rows
from healthfm_core.errors import StoreError
from healthfm_core.modalities.genomics import PRS_PREFIX

CLIP: Final = 6.0
"""A z beyond ±6 SD is brought back to it."""

Z_NORM2: Final = "Z_norm2"
"""Mean and variance regressed on genetic ancestry (Khera et al. 2019; pgsc_calc's column)."""
SITE_Z: Final = "site_z"
"""Standardised over the site's own people: ancestry is still in it."""
COMPONENTS_Z: Final = "components_z"
"""Standardised over the site's own people, the mean regressed on principal components."""
DECLARED_Z: Final = "declared_z"
"""Normalised before it came here; taken at the writer's word, but for its spread."""
_MARKS: Final = {
    Z_NORM2: "polygenic score, z normalised for ancestry (Z_norm2)",
    SITE_Z: "polygenic score, z over this site's people, not normalised for ancestry",
    COMPONENTS_Z: "polygenic score, z over this site's people of what principal components leave",
    DECLARED_Z: "polygenic score, z as supplied",
}
_LEAST_FOR_SPREAD: Final = 30
_MEAN_AT_MOST, _SD_AT_MOST = 2.0, 3.0


def mark(normalisation: str) -> str:
    """Return the description of a score in ``metadata/codes.parquet``."""
    return _MARKS[normalisation]


def site_z(total: Float64) -> Float64:
    """Standardise raw sums of one score over the site's people (mean 0, SD 1; NaN stays NaN).

    Raises:
        StoreError: HF-211 where fewer than two people have it, or all have the same.
    """
    known = total[np.isfinite(total)]
    spread = float(np.std(known)) if len(known) > 1 else 0.0
    if spread == 0.0:
        raise _no_spread("a raw score does not vary over the site's people")
    return np.asarray((total - known.mean()) / spread)


def components_z(total: Float64, components: Float64) -> Float64:
    """Standardise what a linear regression on principal components leaves of one score.

    Args:
        total: [N] raw sums.
        components: [N, C] the people's principal components.

    Returns:
        [N] mean 0, SD 1; NaN for who lacks the sum or a component.

    Raises:
        StoreError: HF-211 where fewer than twice as many people have both as there are
            components, or nothing is left.
    """
    known = np.isfinite(total) & np.isfinite(components).all(axis=1)
    axes = np.column_stack([np.ones(int(known.sum())), components[known]])
    if len(axes) < 2 * axes.shape[1]:
        raise _no_spread(f"{len(axes)} people have a score and {axes.shape[1] - 1} components")
    fitted = axes @ np.linalg.lstsq(axes, total[known], rcond=None)[0]
    z = np.full(len(total), np.nan)
    z[known] = site_z(total[known] - fitted)
    return z


def _no_spread(seen: str) -> StoreError:
    return StoreError(
        211,
        where="polygenic scores",
        seen=seen,
        wanted="a spread over more people is wanted to standardise it",
        do="Run pgsc_calc with ancestry normalisation, which gives Z_norm2",
    )


def _check_spread(table: pa.Table, where: str) -> None:
    score, names = coded(table["score"])
    z = np.asarray(table["z"].to_numpy(), np.float64)
    count = np.bincount(score, minlength=len(names))
    mean = np.bincount(score, z, len(names)) / np.maximum(count, 1)
    sd = np.sqrt(np.bincount(score, (z - mean[score]) ** 2, len(names)) / np.maximum(count, 1))
    raw = (count >= _LEAST_FOR_SPREAD) & ((np.abs(mean) > _MEAN_AT_MOST) | (sd > _SD_AT_MOST))
    if raw.any():
        raise StoreError(
            211,
            where=where,
            seen=f"{int(raw.sum())} of {len(names)} scores do not look like z",
            wanted=(
                f"|mean| ≤ {_MEAN_AT_MOST:g} and SD ≤ {_SD_AT_MOST:g} are wanted; a raw sum "
                "says where a person's ancestors lived before it says anything else"
            ),
            do="Take Z_norm2 of pgsc_calc, or standardise at the site and mark it so",
        )


def score_events(table: pa.Table, where: str = "polygenic scores") -> pa.Table:
    """Return scores as static MEDS rows, clipped to ±6.

    Args:
        table: subject_id int64, score string (``PGS000018``), z float; rows without a finite z
            are left out, since an absent score is no row.
        where: Named in an error.

    Raises:
        StoreError: HF-211 for raw sums, HF-204 for a score given twice to one subject.
    """
    table = table.filter(pc.fill_null(pc.is_finite(table["z"]), False))
    if repeated([ids(table), coded(table["score"])[0]]).any():
        raise StoreError(
            204,
            where=where,
            seen="a subject has a score twice",
            do="Keep one genome build or sample set",
        )
    _check_spread(table, where)
    z = np.clip(np.asarray(table["z"].to_numpy(), np.float64), -CLIP, CLIP).astype(np.float32)
    score, names = coded(table["score"])
    codes = pa.array([f"{PRS_PREFIX}{name}" for name in names], pa.string())
    return static_rows(ids(table), codes.take(pa.array(score)), pa.array(z))
