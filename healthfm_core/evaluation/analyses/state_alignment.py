"""Whether two models' states say the same, up to a linear map.

A representation is identified when training it again gives it again, but for a change of
coordinates that a linear head undoes. Two measures on the same queries: linear CKA, blind to
rotations and to scale, and the share of one model's states that a linear map of the other's gives
on people it was not fitted on, blind to every invertible linear map.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from healthfm_core.arrays import Float64

RIDGE = 1e-8
"""Of the map, as a share of the mean variance: states may lie in few of their dimensions."""


def linear_cka(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"]) -> float:
    """Return the linear centred kernel alignment of two sets of states (Kornblith et al. 2019).

    1 where one is the other rotated and scaled, near 0 where they have nothing linear in common.

    Args:
        x: One model's states.
        y: The other's, of the same queries.
    """
    x, y = _centred(x), _centred(y)
    apart = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / apart) if apart > 0 else float("nan")


def linear_map_r2(
    train: tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n e"]],
    test: tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m e"]],
) -> float:
    """Return how much of the second model's states a linear map of the first one's gives.

    R² over all dimensions together: 1 − squared error / squared distance to the test rows' mean.

    Args:
        train: Both models' states of the queries that the map is fitted to.
        test: Both models' states of the queries that it is judged on.
    """
    here, there = (np.asarray(part, np.float64) for part in train)
    x = here - here.mean(0)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += RIDGE * max(np.trace(gram) / len(gram), 1e-300)
    slope = np.linalg.solve(gram, x.T @ (there - there.mean(0)))
    said = (np.asarray(test[0], np.float64) - here.mean(0)) @ slope + there.mean(0)
    around = (_centred(test[1]) ** 2).sum()
    error = ((np.asarray(test[1], np.float64) - said) ** 2).sum()
    return float(1.0 - error / around) if around > 0 else float("nan")


def _centred(x: Float[np.ndarray, "n d"]) -> Float64:
    x = np.asarray(x, np.float64)
    return x - x.mean(0)
