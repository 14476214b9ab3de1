"""Sites that write the same condition under different codes, all of them below one.

Where one hospital writes ICD-10-CM E11.65 and the next E11.9, both mean E11. Each site has its own
shares of a condition's codes; which one a diagnosis gets is drawn by these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.arrays import Float64
from healthfm_core.config import CohortConfig
from healthfm_simulations.partition.site_plan import CohortSite, Partition

CONDITION: Final = "DX//"
"""What codes of conditions start with."""
_BELOW: Final = "."


def below(condition: str, variants: int) -> list[str]:
    """Return the codes below a condition's: ``DX//C03.1``, …."""
    return [f"{condition}{_BELOW}{number}" for number in range(1, variants + 1)]


def condition_of(code: str) -> str:
    """Return the condition that a code means: itself, or what it stands below."""
    return code.partition(_BELOW)[0] if code.startswith(CONDITION) else code


def draw_shares(
    conditions: Sequence[str], variants: int, alpha: float, rng: np.random.Generator
) -> dict[str, Float64]:
    """Return condition → a site's shares [variants] of its codes, which sum to 1."""
    drawn = rng.dirichlet(np.full(variants, alpha), len(conditions))
    return dict(zip(conditions, drawn, strict=True))


def written_below(
    events: pa.Table, shares: Mapping[str, Float64], rng: np.random.Generator
) -> pa.Table:
    """Return `events` with each diagnosis under a code below its condition's.

    Args:
        events: MEDS columns.
        shares: Condition → the site's shares of its codes; codes that are none of them stay.
        rng: Draws a number for every event.
    """
    encoded = pc.dictionary_encode(events["code"].combine_chunks())
    names, index = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().copy()
    uniform = rng.random(len(index))
    for at, name in enumerate(list(names)):
        if name not in shares:
            continue
        rows = np.flatnonzero(index == at)
        chosen = np.searchsorted(np.cumsum(shares[name])[:-1], uniform[rows], side="right")
        index[rows] = len(names) + chosen
        names += below(name, len(shares[name]))
    code = pc.take(pa.array(names, pa.string()), pa.array(index))
    return events.set_column(events.schema.get_field_index("code"), "code", code)


def with_codes_below(codes: pa.Table, conditions: Sequence[str], variants: int) -> pa.Table:
    """Return the code table with the codes below each condition, the condition as their parent."""
    rows = [
        {"code": code, "description": f"{row['description']} ({code})", "parent_codes": [parent]}
        for row in codes.to_pylist()
        if (parent := row["code"]) in conditions
        for code in below(parent, variants)
    ]
    return pa.concat_tables([codes, pa.Table.from_pylist(rows, schema=codes.schema)])


def _records(site: CohortSite, config: CohortConfig, rng: np.random.Generator) -> CohortSite:
    """Write the site's diagnoses under codes below the conditions'; local names stay."""
    if config.code_variants == 1:
        return site
    conditions = [
        row["code"]
        for row in site.codes.to_pylist()
        if row["code"].startswith(CONDITION) and not row["parent_codes"]
    ]
    shares = draw_shares(conditions, config.code_variants, config.code_habit, rng)
    return replace(
        site,
        events=written_below(site.events, shares, rng),
        codes=with_codes_below(site.codes, conditions, config.code_variants),
    )


PARTITION: Final = Partition("habits", records=_records)
