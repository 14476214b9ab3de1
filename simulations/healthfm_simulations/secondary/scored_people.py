"""A model at a site: its people tokenised, its loader, the network with the site's intercepts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from healthfm_core.arrays import Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.models import HealthFM
from healthfm_core.seeding import numpy_generator
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.training import loaded_model, loader_for
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import Model, intercepts_of, view_of
from healthfm_simulations.sites import SimulatedSite


@dataclass(frozen=True)
class ModelAtSite:
    """A model among the people of one site.

    Attributes:
        model: The finished model.
        network: The same, able to answer.
        site: The site.
        index: Its place among all sites.
        sequences: The people.
        loader: Of the people.
        key: [S] int64, a number for each subject that is unique over the sites and the same in
            every arm.
    """

    model: Model
    network: HealthFM
    site: SimulatedSite
    index: int
    sequences: Sequences
    loader: BatchLoader
    key: Int64

    def batches(self, config: RunConfig) -> Iterator[Batch]:
        """Return the rows to ask at: every visit, or one visit of each person.

        Which visit does not depend on the model, so every arm is asked the same.
        """
        size = 2 * config.train.batch_size
        if config.evaluation.horizon_queries == "every_visit":
            return self.loader.in_order(batch_size=size, query="now")
        rng = numpy_generator(config.seed, "asked", self.site.name)
        return self.loader.epoch(rng, batch_size=size, query="now")


def model_at_site(
    model: Model,
    site: SimulatedSite,
    sites: tuple[SimulatedSite, ...],
    config: RunConfig,
    *,
    split: str | None,
    trained_as: SimulatedSite | None = None,
) -> ModelAtSite:
    """Return `model` at `site`, for the people of `split` (None: everyone).

    Args:
        model: The finished model.
        site: Whose people.
        sites: All sites of the run.
        config: The run's configuration.
        split: Which of the people.
        trained_as: The site as it trained, where that is another; it gives the intercepts.
    """
    store = view_of(model, site)
    people = tokenize([store], model.study.vocabulary, config.tokens, split=split)
    network = loaded_model(
        model.parameters, model.study, store.modalities, intercepts_of(model, trained_as or site)
    )
    index = [s.name for s in sites].index(site.name)
    key = np.searchsorted(store.subjects(split), people.subject_id) + (np.int64(index) << 32)
    return ModelAtSite(model, network, site, index, people, loader_for(people, model.study), key)


def at_test_sites(
    model: Model,
    fold: CrossValidationFold,
    sites: tuple[SimulatedSite, ...],
    config: RunConfig,
) -> Iterator[ModelAtSite]:
    """Yield the model at each test site of the fold, for the people who are scored there."""
    for site in fold.test:
        trained_as = fold.trained_as(site)
        yield model_at_site(model, site, sites, config, split=fold.split, trained_as=trained_as)
