"""All modalities, found by the files of this package; everything that is asked about one of them.

Every file of the package with a ``SPEC`` is a modality.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Final

import numpy as np
from meds import birth_code, death_code

from healthfm_core.arrays import Bool
from healthfm_core.modalities.spec import DataForm, ModalitySpec, PersonRecords

VITAL_CODES: Final = (birth_code, death_code)
"""Codes that belong to no modality: birth and death."""

_PACKAGE: Final = __name__.rpartition(".")[0]


@cache
def _registry() -> dict[str, ModalitySpec]:
    """Return the modalities by name; made once, from the package's files."""
    folder = importlib.import_module(_PACKAGE).__path__
    modules = (
        importlib.import_module(f"{_PACKAGE}.{file.name}") for file in pkgutil.iter_modules(folder)
    )
    specs_found = [module.SPEC for module in modules if hasattr(module, "SPEC")]
    return {spec.name: spec for spec in specs_found}


def register(spec: ModalitySpec) -> None:
    """Add a modality that is no file of this package, for this process.

    Raises:
        ValueError: Its name, its place or its prefix is another's.
    """
    for other in specs():
        for what in ("name", "order", "code_prefix"):
            if getattr(other, what) == getattr(spec, what):
                raise ValueError(f"{spec.name}: {what} is that of {other.name}")
    _registry()[spec.name] = spec


def unregister(name: str) -> None:
    """Take a modality out again that `register` added."""
    del _registry()[name]


def specs(form: DataForm | None = None) -> tuple[ModalitySpec, ...]:
    """Return the modalities (of one form) in their order."""
    chosen = (spec for spec in _registry().values() if form in (None, spec.form))
    return tuple(sorted(chosen, key=lambda spec: spec.order))


def modality_names(form: DataForm | None = None) -> tuple[str, ...]:
    """Return the names of the modalities (of one form) in their order."""
    return tuple(spec.name for spec in specs(form))


def find(name: str) -> ModalitySpec:
    """Return the modality called `name`.

    Raises:
        KeyError: There is none.
    """
    return _registry()[name]


def described(names: Iterable[str]) -> str:
    """Return modalities as a sentence for people names them; an unknown one by its own name."""
    known = _registry()
    return ", ".join(known[name].described_as if name in known else name for name in names)


def modality_of(code: str) -> str | None:
    """Return the modality a code belongs to; None for birth and death, which are of every one."""
    if code in VITAL_CODES:
        return None
    rest = ""
    for spec in specs():
        if spec.code_prefix and code.startswith(spec.code_prefix):
            return spec.name
        rest = rest if spec.code_prefix else spec.name
    return rest


def is_panel_code(code: str) -> bool:
    """Whether a code is a value of some panel."""
    return code.startswith(tuple(spec.code_prefix for spec in specs("panel")))


def column_of(code: str) -> str:
    """Return what the panels' column of a code is called; `code` is a value of a panel."""
    spec = find(modality_of(code) or "")
    return code.removeprefix(spec.code_prefix) if spec.short_columns else code


def code_of_column(column: str) -> str:
    """Return the code of a panels' column."""
    spec = find(modality_of_column(column))
    return spec.code_prefix + column if spec.short_columns else column


def modality_of_column(column: str) -> str:
    """Return the modality that a column of the panels belongs to."""
    short = ""
    for spec in specs("panel"):
        if not spec.short_columns and column.startswith(spec.code_prefix):
            return spec.name
        short = spec.name if spec.short_columns else short
    return short


def in_panel_order(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the columns with those of one modality side by side, by name within it."""
    return tuple(sorted(columns, key=lambda name: (find(modality_of_column(name)).order, name)))


def columns_of(modality: str, columns: Sequence[str]) -> slice:
    """Return which of the panels' columns (in `in_panel_order`) are the modality's."""
    own = [at for at, name in enumerate(columns) if modality_of_column(name) == modality]
    return slice(own[0], own[-1] + 1) if own else slice(0, 0)


def holders(modality: str | None, records: PersonRecords) -> Bool | None:
    """Return [S], whose data the modality can be learned from; None where it is everyone."""
    if modality is None:
        return None
    spec = find(modality)
    if spec.holders is not None:
        return spec.holders(records)
    if spec.form != "panel":
        return None
    values = records.panel_mask[:, columns_of(modality, records.panel_names)]
    return np.asarray(values.any(axis=1), np.bool_)


def unknown_names(names: Collection[str]) -> list[str]:
    """Return those of `names` that are no modality."""
    return sorted(set(names) - set(_registry()))
