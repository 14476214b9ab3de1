"""Who is in which group, read from the records: sex, age, ancestry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from healthfm_core.arrays import Float64, Int64, Text
from healthfm_core.config import RunConfig
from healthfm_core.data.batch.sequences import STATIC, UNKNOWN_TIME, Sequences
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation import Predictions
from healthfm_core.evaluation.analyses.subgroups import (
    Groups,
    SubgroupRow,
    age_bands,
    subgroup_rows,
)
from healthfm_core.seeding import numpy_generator
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.sites import SimulatedSite

DOMAINS: Final = {"sex": ("gender", "sex"), "ancestry": ("ancestry", "race", "ethnicity")}
"""Attribute → domains of the static codes that tell it, in lower case; the first that a person has
counts."""
YEAR_US: Final = 365.25 * 86_400_000_000


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
) -> tuple[Int64, dict[str, Text]]:
    store = SiteStore.open(site.path)
    people = tokenize([store], vocabulary, config.tokens, split=split)
    index = np.int64([s.name for s in sites].index(site.name))
    key = np.searchsorted(store.subjects(split), people.subject_id) + (index << 32)
    labels = {name: _static_codes(people, vocabulary, domains) for name, domains in DOMAINS.items()}
    labels["age"] = age_bands(_age_at_the_end(people))
    labels["site"] = np.full(len(key), site.name)
    return key.astype(np.int64), labels


def _static_codes(people: Sequences, vocabulary: Vocabulary, domains: tuple[str, ...]) -> Text:
    """Return each subject's last static code of the first of `domains`; empty for none."""
    names = np.array(["", *vocabulary.codes], np.str_)
    first = vocabulary.n_codes - len(vocabulary.codes)
    static = np.flatnonzero(people.kind == STATIC)
    owner = np.searchsorted(people.offsets, static, side="right") - 1
    chosen = np.zeros(people.n_subjects, np.int64)
    for domain in reversed(domains):
        of_code = np.zeros(vocabulary.n_codes, np.int64)
        for i, code in enumerate(vocabulary.codes):
            if code.partition("//")[0].lower() == domain:
                of_code[first + i] = i + 1
        named = of_code[people.code[static]]
        chosen[owner[named > 0]] = named[named > 0]
    return np.array([name.partition("//")[2] for name in names[chosen]], np.str_)


def _age_at_the_end(people: Sequences) -> Float64:
    """Return years at the last item of each record, NaN where birth or any time is unknown."""
    last = people.offsets[1:] - 1
    known = (people.birth_us != UNKNOWN_TIME) & (np.diff(people.offsets) > 0)
    known &= people.kind[np.maximum(last, 0)] != STATIC
    birth = np.where(known, people.birth_us, 0)
    years = (people.time_us[np.maximum(last, 0)] - birth) / YEAR_US
    return np.where(known, years, np.nan)
