"""How alike the arms' states are, on the same held-out people's queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from healthfm_core.arrays import Float32, Int64
from healthfm_core.config import RunConfig
from healthfm_core.evaluation import MetricRow
from healthfm_core.evaluation.analyses.state_alignment import linear_cka, linear_map_r2
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import Model
from healthfm_simulations.secondary.scored_people import ModelAtSite, model_at_site
from healthfm_simulations.sites import SimulatedSite

ALIGNMENT: Final = "state_alignment"
"""Task of the rows; their subset names the arm whose states are looked for."""


@dataclass(frozen=True)
class QueryStates:
    """The states that the next-visit head reads.

    Attributes:
        x: [n, d].
        subject: [n] unique over the sites, the same in every arm.
        time_us: [n] the query's time.
    """

    x: Float32
    subject: Int64
    time_us: Int64


def alignment_rows(
    models: Mapping[str, Model],
    fold: CrossValidationFold,
    sites: tuple[SimulatedSite, ...],
    config: RunConfig,
) -> list[MetricRow]:
    """Return how alike each arm's states are to those of ``federated``, or of the first arm.

    Two rows an arm: ``cka``, and ``r2`` of the linear map that gives the first arm's states from
    the arm's own, fitted on the training people and judged on the test people.

    Args:
        models: Arm → its model.
        fold: Whose people.
        sites: All sites of the run.
        config: The run's configuration.
    """
    first = "federated" if "federated" in models else next(iter(models))
    known = {arm: _of_splits(model, fold, sites, config) for arm, model in models.items()}
    rows, none = [], float("nan")
    for arm in models:
        if arm == first:
            continue
        train, test = (
            _same(mine, firsts) for mine, firsts in zip(known[arm], known[first], strict=True)
        )
        people = len(np.unique(known[first][1].subject))
        for metric, value in (("cka", linear_cka(*test)), ("r2", linear_map_r2(train, test))):
            rows.append(MetricRow(arm, ALIGNMENT, first, metric, value, none, none, people))
    return rows


def _of_splits(
    model: Model, fold: CrossValidationFold, sites: tuple[SimulatedSite, ...], config: RunConfig
) -> tuple[QueryStates, QueryStates]:
    """Return the states of the training people and of the test people."""
    asked = ((fold.train, "train"), (fold.test, fold.split))
    train, test = (
        [_states(model_at_site(model, site, sites, config, split=split), config) for site in where]
        for where, split in asked
    )
    return _joined(train), _joined(test)


def _joined(parts: list[QueryStates]) -> QueryStates:
    return QueryStates(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.subject for part in parts]),
        np.concatenate([part.time_us for part in parts]),
    )


@torch.no_grad()
def _states(present: ModelAtSite, config: RunConfig) -> QueryStates:
    network = present.network
    network.eval()
    x, subject, time_us = [], [], []
    for batch in present.loader.in_order(batch_size=2 * config.train.batch_size, query="sep"):
        here, keep = batch.to(network.device), batch.query_mask
        x.append(network(here, here.query).cpu()[keep].numpy())
        subject.append(batch.subject[:, None].expand_as(batch.query)[keep].numpy())
        time_us.append(batch.query_time_us[keep].numpy())
    own = np.concatenate(subject)
    return QueryStates(np.concatenate(x), present.key[own], np.concatenate(time_us))


def _same(one: QueryStates, other: QueryStates) -> tuple[Float32, Float32]:
    """Return both arms' states of the queries that both were asked.

    A model that reads more of a person keeps less of a long history, and so may lack the earliest.
    """
    place = {key: row for row, key in enumerate(_keys(one))}
    common = [(place[key], row) for row, key in enumerate(_keys(other)) if key in place]
    here, there = np.array(common, np.int64).reshape(-1, 2).T
    return one.x[here], other.x[there]


def _keys(states: QueryStates) -> Iterator[tuple[int, int]]:
    """Yield (subject, time) of each query."""
    return zip(states.subject.tolist(), states.time_us.tolist(), strict=True)
