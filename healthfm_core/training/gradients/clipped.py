"""The clipped gradients of the people of a site, added up: what every kind of noise begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from healthfm_core.arrays import Bool
from healthfm_core.config import PrivacyConfig, TrainConfig
from healthfm_core.data.batch.loader import BatchLoader, Query
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.models import HealthFM
from healthfm_core.privacy.clipping import TOGETHER, ClippedSum
from healthfm_core.privacy.entropy import Entropy
from healthfm_core.training.step import (
    LABEL_QUERY,
    NOW_QUERY,
    SEP_QUERY,
    WORN_QUERY,
    beside_wearing,
    losses,
    queries_for,
)

_HEAD_ASKED: Final[dict[Query, str]] = {
    SEP_QUERY: "next_visit",
    NOW_QUERY: "hazard",
    LABEL_QUERY: "label",
    WORN_QUERY: "cross_modal",
}
_HEADS_OF_WHAT_LEADS: Final = ("masked_codes", "wearable_reconstruction", "predictive_coding")


@dataclass(frozen=True)
class Kind:
    """One kind of step: what it asks, of which rows.

    Attributes:
        query: Kind of row.
        config: The round's, with the weights of other kinds at 0.
        leads: Whether what asks nothing of its own is asked here.
        heads: Those that such a step trains.
    """

    query: Query
    config: TrainConfig
    leads: bool
    heads: frozenset[str]


def kinds_of(config: TrainConfig, model: HealthFM) -> tuple[Kind, ...]:
    """Return the kinds of step that train something of `model`; what the data hold plays no part.

    One pass through the model makes one kind: the next event, which reads the rows from left to
    right, is a kind of its own.
    """
    found = []
    queries = queries_for(config)
    for query in queries:
        leads = query == queries[0]
        heads = {_HEAD_ASKED[query], *(_HEADS_OF_WHAT_LEADS if leads else ())}
        found.append(Kind(query, _without(config, "next_event"), leads, _held(heads, model)))
    if config.objectives.next_event > 0:
        alone = _without(config, "next_visit")
        found.append(Kind(SEP_QUERY, alone, False, _held({"next_event"}, model)))
    return tuple(kind for kind in found if kind.heads)


def _held(heads: set[str], model: HealthFM) -> frozenset[str]:
    return frozenset(heads & set(model.heads))


def _without(config: TrainConfig, objective: str) -> TrainConfig:
    weights = config.objectives.model_copy(update={objective: 0.0})
    return config.model_copy(update={"objectives": weights})


class ClippedGradients:
    """Reads the rows of some people and adds up their clipped gradients.

    Args:
        model: What learns of it requires gradients.
        loader: Rows of the people.
        config: Norms, and how gradients are told apart.
        entropy: Masks and what is dropped are drawn from it.
    """

    def __init__(
        self, model: HealthFM, loader: BatchLoader, config: PrivacyConfig, entropy: Entropy
    ) -> None:
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._group = {name: group_of(name) if config.group_norms else TOGETHER for name in names}
        self._norms = {
            group: config.group_norms.get(group, config.max_grad_norm)
            for group in self._group.values()
        }
        self._model, self._loader, self._rows = model, loader, config.rows_at_once
        self._rng = np.random.default_rng(entropy.seed())
        self._masks = torch.Generator().manual_seed(entropy.seed())
        self._sum = ClippedSum(model, self._norms, self._group, config.grad_sample)

    def norms(self, names: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the norm that each parameter's group was clipped to."""
        return {name: self._norms[self._group[name]] for name in names}

    def groups(self, names: Mapping[str, Tensor]) -> int:
        """Return how many groups that were clipped by themselves `names` belong to."""
        return len({self._group[name] for name in names})

    def __call__(self, kind: Kind, drawn: Bool) -> dict[str, Tensor]:
        """Return the sums of the parameters that such a step trains; of nobody, they are 0.

        Args:
            kind: What is asked.
            drawn: Of whom; nothing else is read.
        """
        self._add(kind, drawn)
        return self._sum.take({name for name in self._group if _is_live(name, kind)})

    def close(self) -> None:
        """Take the hooks off the model."""
        self._sum.close()

    def _add(self, kind: Kind, drawn: Bool) -> None:
        config = kind.config
        for batch in self._loader.sampled(
            self._rng,
            drawn,
            batch_size=self._rows,
            query=kind.query,
            dropout=config.modality_dropout()
            | (beside_wearing(config) if kind.query == WORN_QUERY else {}),
            drop_events=config.drop_events,
        ):
            here = batch.to(self._model.device)
            found = losses(self._model, here, kind.query, config, self._masks, leads=kind.leads)
            lost = self._sum.add(found.per_subject).cpu().numpy()
            if lost.any():
                others = np.zeros_like(drawn)
                others[batch.subject.numpy()[~lost]] = True
                self._add(kind, others)


def _is_live(name: str, kind: Kind) -> bool:
    first, second = name.split(".")[:2]
    return first != "heads" or second in kind.heads
