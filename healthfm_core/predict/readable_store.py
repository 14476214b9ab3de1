"""What a model can read of a store: the modalities and devices of its study."""

from __future__ import annotations

from collections.abc import Collection

from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from healthfm_core.modalities.registry import described, modality_names
from healthfm_core.trained import TrainedModel


def check_readable(
    model: TrainedModel, store: SiteStore, wanted: Collection[str] | None = None
) -> tuple[SiteStore, tuple[str, ...]]:
    """Return the view of a store that a model reads, and what of the store it does not.

    Args:
        model: The model.
        store: The store.
        wanted: Modalities that are to be read, all of them; None is what both have.

    Returns:
        (the view, a sentence for each modality and device that the model never saw).

    Raises:
        IngestError: One of `wanted` is not in the store, or the model never saw it; or nothing is
            left to read (HF-351).
    """
    knows = frozenset(model.study.modalities)
    for name in wanted or ():
        if name not in knows or name not in store.modalities:
            whose = "the store holds none of it" if name in knows else "the model never saw it"
            raise _unreadable(store, model, f"{name} is to be read, and {whose}")
    view = store.narrowed(modalities=knows if wanted is None else knows & set(wanted))
    said = [
        f"{described([name])} is not read: the model never saw any"
        for name in modality_names()
        if name in store.modalities - knows
    ]
    spec = model.study.vocabulary.wearable
    unread = [name for name in view.devices if spec is None or not spec.of_device(name)]
    said += [f"the device {name} is not read: the model never saw one" for name in unread]
    sampled = frozenset(modality_names("samples"))
    left = view.modalities if len(unread) < len(view.devices) else view.modalities - sampled
    if sampled & set(wanted or ()) and not left & sampled:
        raise _unreadable(store, model, f"no device of {', '.join(unread)} was seen by the model")
    if not left:
        raise _unreadable(store, model, "nothing of it is of a kind that the model has seen")
    return view, tuple(said)


def _unreadable(store: SiteStore, model: TrainedModel, seen: str) -> IngestError:
    spec = model.study.vocabulary.wearable
    devices = f" of {', '.join(spec.devices)}" if spec is not None else ""
    return IngestError(
        351,
        where=store.name,
        seen=seen,
        wanted=f"records of {' or '.join(model.study.modalities)}{devices} are wanted",
    )
