"""Who is in which group, read from the records: sex, ancestry, age."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Float64, Text
from healthfm_core.data.batch.sequences import STATIC, UNKNOWN_TIME, Sequences
from healthfm_core.evaluation.analyses.subgroups import age_bands
from healthfm_core.tokens.vocabulary import Vocabulary

DOMAINS: Final = {"sex": ("gender", "sex"), "ancestry": ("ancestry", "race", "ethnicity")}
"""Attribute → domains of the static codes that tell it, in lower case; the first that a person has
counts."""
YEAR_US: Final = 365.25 * 86_400_000_000


def people_groups(people: Sequences, vocabulary: Vocabulary) -> dict[str, npt.NDArray[np.generic]]:
    """Return attribute → [S] name of each subject's group, empty where it is not recorded.

    Only codes of the vocabulary name a group: what is told of it names nothing that was not told.
    """
    labels: dict[str, npt.NDArray[np.generic]] = {
        name: _static_codes(people, vocabulary, domains) for name, domains in DOMAINS.items()
    }
    labels["age"] = age_bands(_age_at_the_end(people))
    return labels


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
