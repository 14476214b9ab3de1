"""The evaluation protocols as folds: sites to train on, and people to test on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from healthfm_core.arrays import Int64
from healthfm_core.config import RunConfig
from healthfm_core.errors import ConfigError
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.sites import SimulatedSite


@dataclass(frozen=True)
class CrossValidationFold:
    """One division of the people into those trained on and those tested.

    Attributes:
        name: Folder name of the fold's runs.
        train: Sites that take part in the federation.
        test: Sites whose people are scored.
        split: People of the test sites that are scored; None is everyone.
        late_days: Only so much of the end of each record is asked about; None is all of it.
    """

    name: str
    train: tuple[SimulatedSite, ...]
    test: tuple[SimulatedSite, ...]
    split: str | None
    late_days: float | None = None

    @property
    def tests_newcomers(self) -> bool:
        """Whether the test sites took no part in training."""
        return not {site.name for site in self.test} <= {site.name for site in self.train}

    def trained_as(self, site: SimulatedSite) -> SimulatedSite:
        """Return the test site as it took part in training; itself where it did not."""
        return next((own for own in self.train if own.name == site.name), site)


def cross_validation_folds(
    config: RunConfig, sites: Sequence[SimulatedSite]
) -> tuple[CrossValidationFold, ...]:
    """Return the folds of the configured protocol over `sites`.

    Raises:
        ConfigError: HF-102 where it names a site that is not, HF-103 where there are too few.
    """
    evaluation = config.evaluation
    if evaluation.protocol == "held_out":
        return (CrossValidationFold("fold-0", tuple(sites), tuple(sites), "held_out"),)
    if evaluation.protocol == "late":
        early = tuple(replace(site, path=site.early or site.path) for site in sites)
        return (CrossValidationFold("fold-0", early, tuple(sites), None, evaluation.late_days),)
    groups = _left_out(config, sites)
    if len(sites) < 2 or any(len(group) == len(sites) for group in groups):
        raise ConfigError(
            103,
            where="evaluation.protocol",
            seen=f"{evaluation.protocol} with {len(sites)} sites",
            wanted="at least one site must be left to train",
            do="Use evaluation.protocol=held_out, or more sites",
        )
    return tuple(
        CrossValidationFold(
            f"fold-{number}",
            tuple(site for i, site in enumerate(sites) if i not in set(group.tolist())),
            tuple(sites[i] for i in sorted(group.tolist())),
            None,
        )
        for number, group in enumerate(groups)
    )


def _left_out(config: RunConfig, sites: Sequence[SimulatedSite]) -> list[Int64]:
    """Return the indices of the sites that each fold leaves out."""
    evaluation, names = config.evaluation, [site.name for site in sites]
    unknown = sorted(set(evaluation.test_sites) - set(names))
    if unknown:
        raise ConfigError(
            102,
            where="evaluation.test_sites",
            seen=f"no site is called {unknown[0]}",
            wanted=f"the sites are {', '.join(names[:12])}",
        )
    if evaluation.test_sites:
        return [np.array([names.index(name) for name in evaluation.test_sites], np.int64)]
    order = numpy_generator(config.seed, "folds").permutation(len(sites))
    if evaluation.protocol == "held_out_sites":
        return [order[: max(1, round(evaluation.held_out_sites * len(sites)))]]
    size = math.ceil(len(sites) / evaluation.folds)
    return [order[first : first + size] for first in range(0, len(sites), size)]
