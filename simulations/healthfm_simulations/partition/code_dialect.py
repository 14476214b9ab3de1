"""Sites that name the same thing differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def dialect(
    codes: Sequence[str], share: float, suffix: str, rng: np.random.Generator
) -> dict[str, str]:
    """Choose local names for ``round(share * len(codes))`` of the codes: ``<code>//<suffix>``."""
    chosen = rng.permutation(len(codes))[: round(share * len(codes))]
    return {codes[i]: f"{codes[i]}//{suffix}" for i in sorted(chosen.tolist())}


def speak(events: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return `events` with the column ``code`` in the local names; other codes stay as they are."""
    if not names:
        return events
    encoded = pc.dictionary_encode(events["code"].combine_chunks())
    spoken = pa.array([names.get(code, code) for code in encoded.dictionary.to_pylist()])
    code = pc.take(spoken, encoded.indices)
    return events.set_column(events.schema.get_field_index("code"), "code", code)


def parents(codes: pa.Table, names: Mapping[str, str]) -> pa.Table:
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
