"""Sites that name the same thing differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.config import CohortConfig
from healthfm_core.modalities.genomics import PRS_PREFIX
from healthfm_simulations.partition.site_plan import CohortSite, Partition


def draw_local_names(
    codes: Sequence[str], share: float, suffix: str, rng: np.random.Generator
) -> dict[str, str]:
    """Choose local names for ``round(share * len(codes))`` of the codes: ``<code>//<suffix>``."""
    chosen = rng.permutation(len(codes))[: round(share * len(codes))]
    return {codes[i]: f"{codes[i]}//{suffix}" for i in sorted(chosen.tolist())}


def rename_codes(events: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return `events` with the column ``code`` in the local names; other codes stay as they are."""
    if not names:
        return events
    encoded = pc.dictionary_encode(events["code"].combine_chunks())
    spoken = pa.array([names.get(code, code) for code in encoded.dictionary.to_pylist()])
    code = pc.take(spoken, encoded.indices)
    return events.set_column(events.schema.get_field_index("code"), "code", code)


def with_local_codes(codes: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return the code table with each local name added, its parent the code it stands for.

    Args:
        codes: Columns code, description, parent_codes (MEDS ``metadata/codes.parquet``).
        names: Code → local name.
    """
    rows = [row for row in codes.to_pylist() if row["code"] in names]
    local = [
        {
            "code": names[row["code"]],
            "description": f"{row['description']} (local name)",
            "parent_codes": [row["code"]],
        }
        for row in rows
    ]
    return pa.concat_tables([codes, pa.Table.from_pylist(local, schema=codes.schema)])


def _records(site: CohortSite, config: CohortConfig, rng: np.random.Generator) -> CohortSite:
    """Rename a share of the site's codes; scores keep their names in the PGS Catalog."""
    codes = [code for code in site.codes["code"].to_pylist() if not code.startswith(PRS_PREFIX)]
    names = draw_local_names(codes, config.code_dialect, site.name, rng)
    return replace(
        site,
        events=rename_codes(site.events, names),
        codes=with_local_codes(site.codes, names),
        local_names=names,
    )


PARTITION: Final = Partition("dialect", records=_records)
