"""Parameter groups: the one place that knows which parameters a site may move.

A parameter's group follows from its name: ``encoders.wearable.*`` is ``wearable``, ``backbone.*``
is ``backbone``, ``heads.next_visit.*`` is ``head/next_visit``. A site holds a group when it has
the modality the group needs; a group that needs none is held by every site.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Final, Literal

from healthfm_core.config.train import Trainable
from healthfm_core.errors import ProtocolError
from healthfm_core.modalities.registry import modality_names

BACKBONE: Final = "backbone"
HEAD: Final = "head/"


def group_of(parameter: str) -> str:
    """Return the group of `parameter`.

    Raises:
        ValueError: The name belongs to no group; names are the model's own, never a user's.
    """
    first, _, rest = parameter.partition(".")
    second = rest.partition(".")[0]
    if first == "encoders" and second in modality_names():
        return second
    if first == "heads" and second:
        return HEAD + second
    if first == BACKBONE:
        return BACKBONE
    raise ValueError(f"parameter {parameter!r} belongs to no group")


def is_trainable(parameter: str, trainable: Trainable) -> bool:
    """Whether `parameter` is trained where `trainable` says what is; heads always are."""
    parts = {"all": "", "adapters": ".adapter.", "linear_logit": ".linear_logit.", "heads": None}
    part = parts[trainable]
    return parameter.startswith("heads.") or (part is not None and part in parameter)


def group_names(parameters: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return group → its parameters, both sorted."""
    members: dict[str, list[str]] = {}
    for name in sorted(parameters):
        members.setdefault(group_of(name), []).append(name)
    return {group: tuple(members[group]) for group in sorted(members)}


def modality_of(group: str) -> str | None:
    """Return the modality a site must hold to move `group`; None when every site may."""
    if group in modality_names():
        return group
    return _modality_of_heads().get(group)


@cache
def _modality_of_heads() -> dict[str, str | None]:
    from healthfm_core.objectives import OBJECTIVES  # PyTorch: names alone need not wait for it

    return {objective.group: objective.modality for objective in OBJECTIVES}


def gradient_norm_metric(group: str) -> str:
    """Return the name of the metric that tells the mean norm of a group's gradients."""
    return f"grad_norm/{group}"


def groups_held(modalities: Collection[str], groups: Iterable[str]) -> tuple[str, ...]:
    """Return those of `groups` that a site with `modalities` may move, sorted."""
    return tuple(sorted(g for g in groups if (modality_of(g) or "") in {"", *modalities}))


def agree_on_modalities(
    sites: Sequence[Collection[str]], aggregation: Literal["modality", "shared"]
) -> tuple[str, ...]:
    """Return the modalities whose encoders the study's model has, sorted.

    Args:
        sites: What each participating site holds.
        aggregation: ``modality``: what any site holds; ``shared``: what every site holds, since
            plain FedAvg averages only parameters that all of them have.

    Raises:
        ProtocolError: No modality is left (HF-406).
    """
    held = [set(site) for site in sites]
    if not held:
        agreed: set[str] = set()
    elif aggregation == "shared":
        agreed = set.intersection(*held)
    else:
        agreed = set.union(*held)
    if not agreed:
        raise ProtocolError(
            406,
            where=f"federation.aggregation.groups={aggregation}",
            seen=f"{len(held)} sites hold no modality " + ("in common" if held else "at all"),
            do="Use federation.aggregation.groups=modality, or leave out sites that lack it",
        )
    return tuple(sorted(agreed))


def nothing_let_out(k_min: int) -> ProtocolError:
    """Return the error for a study about which no site may say anything (HF-406).

    Args:
        k_min: Fewer people of a site are never counted.
    """
    return ProtocolError(
        406,
        where="statistics",
        seen=f"no code, device or score is of at least tokens.k_min={k_min} people of any site",
        wanted=f"sites with {k_min} people or more who have something in common",
        do="Let larger sites take part, or lower tokens.k_min where every site's policy permits it",
    )
