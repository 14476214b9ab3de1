"""Names that changed from one release to the next: one table for keys, values and parameters.

Where a person writes an old name (command line, YAML, ``site.yaml``) it is refused, and the
sentence has the new one. Where an older release wrote it (studies, run folders, exported models)
it is read as the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from healthfm_core.errors import ConfigError

RELEASE: Final = "0.2.0"
"""The release that brought the new names."""

Path = tuple[str, ...]
Parameter = TypeVar("Parameter")


@dataclass(frozen=True)
class Renames:
    """The renames of one kind of file.

    Attributes:
        keys: Old dotted key → new dotted key; a section stands for all that is in it.
        values: ``key=old value`` → ``key=new value``, under the key's new name, or the key it goes
            to where a section has its name now. On the command line the same for the name of a
            file: ``group=old file`` → ``group=new file``.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)

    def refuse(self, values: Mapping[str, Any], *, file: str = "") -> None:
        """Refuse the first old name in `values`.

        Args:
            values: Nested as YAML has them, or flat with dotted keys as the command line has them.
            file: Name of the file they stand in; "" for the run's configuration.

        Raises:
            ConfigError: There is one; its sentence has the new name (HF-101).
        """
        for path, value in _leaves(values):
            old, new = ".".join(path), ".".join(self._renamed(path))
            if old != new:
                several = isinstance(value, Mapping | list | tuple)
                now = f"{new}={'...' if several else value}"
                raise _renamed(old, new, self.values.get(now, now), file)
            for given in value if isinstance(value, list | tuple) else [value]:
                now = self.values.get(f"{old}={given}", "")
                if now:
                    raise _renamed(f"{old}={given}", now, now, file)

    def upgrade(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an older release wrote under the names of this one."""
        upgraded: dict[str, Any] = {}
        for path, value in _leaves(values):
            new = self._renamed(path)
            key = ".".join(new)
            moved = self.values.get(f"{key}={value}", key).split("=", 1)[0]
            *sections, name = new if moved == key else moved.split(".")
            section = upgraded
            for part in sections:
                section = section.setdefault(part, {})
            section[name] = self._value(".".join((*sections, name)), value)
        return upgraded

    def _renamed(self, path: Path) -> Path:
        for n in range(len(path), 0, -1):
            new = self.keys.get(".".join(path[:n]))
            if new is not None:
                return (*new.split("."), *path[n:])
        return path

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(key, element) for element in value]
        new = self.values.get(f"{key}={value}")
        return value if new is None else new.split("=", 1)[1]


RUN: Final = Renames(
    keys={
        "model.sums": "model.sum_pooling",
        "model.evidence": "model.linear_logit",
        "train.learns": "train.trainable",
        "train.lr_evidence": "train.lr_linear",
        "train.eps_evidence": "train.eps_linear",
        "train.mask_wearing": "train.mask_wearable",
        "federation.code_average": "federation.aggregation.code_rows",
        "federation.max_update_norm": "federation.aggregation.max_update_norm",
        "federation.robust.name": "federation.aggregation.method",
        "federation.robust.hostile": "federation.aggregation.byzantine_fraction",
        "federation.server_optimizer": "federation.aggregation.server_optimizer",
        "federation.secure_aggregation": "federation.aggregation.secure",
        "federation.secure_aggregation.letters_s": (
            "federation.aggregation.secure.message_timeout_s"
        ),
        "federation.secure_aggregation.corrupt": (
            "federation.aggregation.secure.colluding_fraction"
        ),
        "federation.secure_aggregation.dropout": "federation.aggregation.secure.dropout_fraction",
    },
    values={
        "train.trainable=evidence": "train.trainable=linear_logit",
        "federation.aggregation=modality": "federation.aggregation.groups=modality",
        "federation.aggregation=shared": "federation.aggregation.groups=shared",
        "federation.aggregation.method=none": "federation.aggregation.method=weighted_mean",
        "federation.aggregation.method=median": "federation.aggregation.method=coordinate_median",
    },
)
"""The run's configuration: command line, ``configs/``, and every stored `RunConfig`."""

SITE: Final = Renames(
    values={
        "privacy_floor=noise": "privacy_floor=differential_privacy",
        "privacy_floor=sums": "privacy_floor=secure_aggregation",
    }
)
"""``site.yaml``."""

PARAMETERS: Final[Mapping[str, str]] = {
    "backbone.sums.": "backbone.sum_pooling.",
    "encoders.ehr.evidence.": "encoders.ehr.linear_logit.",
    "encoders.wearable.evidence.": "encoders.wearable.linear_logit.",
    "heads.hazard.": "heads.time_to_event.",
    "heads.wearable_reconstruction.": "heads.masked_wearable.",
    "heads.next_event.told.": "heads.next_event.gap_embedding.",
}
"""First part of a parameter's name in a checkpoint → the one it has now."""


def upgraded_parameters(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Return a model's parameters under the names that they have in this release."""
    upgraded = {}
    for name, parameter in parameters.items():
        old = max((o for o in PARAMETERS if name.startswith(o)), key=len, default="")
        upgraded[PARAMETERS.get(old, "") + name.removeprefix(old)] = parameter
    return upgraded


def _leaves(values: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in values.items():
        path = (*above, *str(key).split(".")) if not above else (*above, str(key))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path, value


def _renamed(old: str, new: str, written: str, file: str) -> ConfigError:
    return ConfigError(
        101,
        where=f"{file}, {old}" if file else old,
        seen=f"renamed in {RELEASE}",
        wanted=f"it is {new} now",
        do=f"Write {written.replace('=', ': ', 1) if file else written}",
    )
