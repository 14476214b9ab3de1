"""What an arm leaves out: why it has no row, or what of the inputs its models do not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from healthfm_simulations.arms.arm_training import TrainedArm
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import EVERYTHING, Model

SITES_MODELS: Final = {
    ("local", False): "each person is asked by the own site's model",
    ("local", True): "the mean over the sites' models",
    ("ensemble", False): "the sites' models together",
    ("ensemble", True): "the sites' models together",
}
"""(arm, whether newcomers are tested) → what its row is, where each site has a model."""


def remarks_of(
    trained: Mapping[str, TrainedArm], fold: CrossValidationFold, inputs: str
) -> dict[str, str]:
    """Return arm → what its row for some inputs leaves out; nothing for an arm that reads it all.

    Args:
        trained: The arms.
        fold: What they were trained on, and whom they are asked about.
        inputs: ``all``, or the modalities shown, joined by ``+``.
    """
    held = frozenset[str]().union(*(site.view().modalities for site in fold.train))
    shown = held if inputs == EVERYTHING else frozenset(inputs.split("+"))
    found = {}
    for arm, of in trained.items():
        if arm in {name for name, _ in SITES_MODELS}:
            said = _sites_models(arm, of, shown, newcomers=fold.tests_newcomers)
        else:
            said = of.absent.get("") or _one_model(of, shown)
        if said:
            found[arm] = said
    return found


def _one_model(of: TrainedArm, shown: frozenset[str]) -> str:
    """Return what the one model does not read; zeros in place of what is absent are read."""
    if of.shown_fold is not None or "" not in of.models:
        return ""
    knows = frozenset(of.models[""].study.modalities)
    if shown <= knows:
        return ""
    if not shown & knows:
        return f"its model reads {_named(knows)} alone, and is shown none"
    return f"its model reads {_named(shown & knows)} alone"


def _sites_models(arm: str, of: TrainedArm, shown: frozenset[str], *, newcomers: bool) -> str:
    """Return how many of the sites' models read what, where not every one reads all of it."""
    parts = [_absent(of.absent)] if of.absent else []
    read = Counter(_named(_read(model) & shown) for model in of.models.values())
    can = {names: count for names, count in read.items() if names}
    if can and set(can) != {_named(shown)}:
        counts = ", ".join(f"{count} of {names}" for names, count in sorted(can.items()))
        parts.append(f"{SITES_MODELS[arm, newcomers]}: {counts}")
    return "; ".join(parts)


def _absent(absent: Mapping[str, str]) -> str:
    if set(absent) == {""}:
        return absent[""]
    reasons = Counter(absent.values())
    return "; ".join(
        f"no model at {_sites([site for site, said in absent.items() if said == reason])}: {reason}"
        for reason in reasons
    )


def _sites(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} sites"


def _read(model: Model) -> frozenset[str]:
    return frozenset(model.study.modalities)


def _named(names: Collection[str]) -> str:
    return " + ".join(sorted(names))
