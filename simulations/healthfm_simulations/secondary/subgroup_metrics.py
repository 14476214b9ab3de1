"""Who is in which group, read from the records: sex, age, ancestry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation import Predictions
from healthfm_core.evaluation.analyses.people_groups import people_groups
from healthfm_core.evaluation.analyses.subgroups import Groups, SubgroupRow, subgroup_rows
from healthfm_core.seeding import numpy_generator
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.sites import SimulatedSite


def group_rows(
    arms: dict[str, Predictions],
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    vocabulary: Vocabulary,
    config: RunConfig,
) -> list[SubgroupRow]:
    """Return every arm's metrics by sex, age band, ancestry and site, of groups large enough."""
    parts = [_of_site(site, sites, vocabulary, config, fold.split) for site in fold.test]
    names = ("sex", "ancestry", "age", "site")
    groups = Groups(
        np.concatenate([key for key, _ in parts]),
        {name: np.concatenate([labels[name] for _, labels in parts]) for name in names},
    )
    return subgroup_rows(
        arms,
        groups,
        k=config.evaluation.k_subgroup,
        bootstraps=config.evaluation.bootstraps,
        rng=numpy_generator(config.seed, "bootstrap"),
        subset="new_onset" if config.evaluation.task == "next_visit" else "overall",
    )


def _of_site(
    site: SimulatedSite,
    sites: Sequence[SimulatedSite],
    vocabulary: Vocabulary,
    config: RunConfig,
    split: str | None,
) -> tuple[Int64, dict[str, npt.NDArray[np.generic]]]:
    store = SiteStore.open(site.path)
    people = tokenize([store], vocabulary, config.tokens, split=split)
    index = np.int64([s.name for s in sites].index(site.name))
    key = np.searchsorted(store.subjects(split), people.subject_id) + (index << 32)
    labels = people_groups(people, vocabulary)
    labels["site"] = np.full(len(key), site.name)
    return key.astype(np.int64), labels
