"""Plain words for what the model read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow.parquet as pq

from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE
from healthfm_core.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class CodeNames:
    """How a site's codes, scores and readings are called on a page.

    Attributes:
        codes: By code index of the vocabulary.
        described: Code → its name.
        scores: By place in the panel.
        hours_per_token: Hours of wearing in one token.
    """

    codes: tuple[str, ...]
    described: dict[str, str]
    scores: tuple[str, ...]
    hours_per_token: float

    @classmethod
    def of(cls, vocabulary: Vocabulary, store: SiteStore) -> Self:
        """Return the names; a code is called as the site's own code table describes it."""
        texts = descriptions(store)
        described = {code: named(code, texts) for code in vocabulary.codes}
        device = vocabulary.wearable
        special = vocabulary.n_codes - len(vocabulary.domains) - len(vocabulary.codes)
        return cls(
            codes=(
                *["a code unknown to the study"] * special,
                *(f"a code unknown to the study ({name})" for name in vocabulary.domains),
                *described.values(),
            ),
            described=described,
            scores=tuple(f"polygenic score {name}" for name in vocabulary.panel),
            hours_per_token=device.token_s / 3600 if device else 0.0,
        )

    def code(self, index: int) -> str:
        """Return a code's name."""
        return self.codes[index]

    def of_code(self, code: str) -> str:
        """Return the name of a code of the study."""
        return self.described[code]

    def score(self, place: int) -> str:
        """Return a score's name."""
        return self.scores[place]

    def z(self, value: np.floating) -> str:
        """Write a score's value."""
        return f"{float(value):+.1f} SD".replace("-", "−")

    def quantile(self, value: float) -> str:
        """Write where in [-1, 1] a value lies among the study's."""
        return f"higher than {int(50 * (value + 1))} % of the study's"

    def worn(self, tokens: int) -> str:
        """Write how long a device was worn."""
        return f"{tokens * self.hours_per_token:.3g} h worn"


def descriptions(store: SiteStore) -> dict[str, str]:
    """Return the site's code → its description, of those that have one."""
    path = store.path / CODES_FILE
    if not path.is_file() or "description" not in pq.read_schema(path).names:
        return {}
    table = pq.read_table(path, columns=["code", "description"])
    codes, texts = table.column("code").to_pylist(), table.column("description").to_pylist()
    return {code: text.strip() for code, text in zip(codes, texts, strict=True) if text}


def named(code: str, described: dict[str, str]) -> str:
    """Return a code with its description before it where there is one."""
    return f"{described[code]} ({code})" if described.get(code) else code
