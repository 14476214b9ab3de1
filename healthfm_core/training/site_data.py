"""What a site trains on: its tokenised people, and the model it may build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.config import RunConfig
from healthfm_core.data.batch.sequences import SPREAD, Sequences
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.data.store.splits import keeps_label
from healthfm_core.errors import StoreError
from healthfm_core.federation.protocol import Study
from healthfm_core.models import HealthFM, ModelShape
from healthfm_core.models.encoders.encoder_registry import soft_tokens
from healthfm_core.objectives import heads_for
from healthfm_core.seeding import seed_for
from healthfm_core.tokens.vocabulary import MASK_TOKEN, Vocabulary
from healthfm_core.training.intercepts import Intercepts, site_intercepts
from healthfm_core.training.token_cache import TRAIN, TUNING, tokens_of


@dataclass(frozen=True)
class SiteData:
    """One site's people, tokenised by the study's vocabulary.

    Attributes:
        train: People to train on.
        tuning: People to tune on.
        modalities: What the site holds and may use.
        intercepts: Head → the site's own intercepts, which never leave it.
    """

    train: Sequences
    tuning: Sequences
    modalities: frozenset[str]
    intercepts: Intercepts

    @classmethod
    def load(cls, stores: Sequence[StoreView], study: Study) -> SiteData:
        """Return the stores' training and tuning people as tokens, and nobody held out for testing.

        They are read from files beside the first store, which are written if they are not there
        (`token_cache`). No two of the stores share a person (`join_stores`).
        What the study's model has no encoder for is left aside, as if the site did not hold it.

        Raises:
            StoreError: The study learns a label alone, and no store has it (HF-208).
        """
        wanted = frozenset(study.modalities)
        _check_labelled(stores, study.config)
        views = [s.narrowed(modalities=wanted & s.modalities) for s in stores]
        people = tokens_of(views, study, training_splits(study.config))
        train = people[TRAIN]
        if study.config.train.label_share < 1:
            train = _with_shared_labels(train, study.config)
        held = frozenset[str]().union(*(view.modalities for view in views))
        return cls(
            train,
            people[TUNING],
            modalities=held,
            intercepts=site_intercepts(train, study),
        )


def _check_labelled(stores: Sequence[StoreView], config: RunConfig) -> None:
    task = config.label_task
    if config.train.objectives.asked() != ("label",) or task is None:
        return
    if not any(task in store.tasks for store in stores):
        raise StoreError(
            208,
            where=f"labels/{task}",
            seen="the study learns this label and nothing else, and the site has none of it",
            wanted="a label table of that name",
            do=f"Make it: healthfm-client labels STORE FILE --name {task}",
        )


def _with_shared_labels(train: Sequences, config: RunConfig) -> Sequences:
    """Return the training people with the labels of `train.label_share` of them."""
    labelled = train.subject_id[train.label_subject]
    kept = keeps_label(labelled, share=config.train.label_share, seed=config.seed)
    return train.with_labels(kept)


def training_splits(config: RunConfig) -> tuple[str, ...]:
    """Return the splits of a training site whose people train.

    Where whole sites are held out for testing, its own held-out people train too.
    """
    return ("train",) if config.evaluation.protocol == "held_out" else ("train", "held_out")


def shape_of(vocabulary: Vocabulary, config: RunConfig) -> ModelShape:
    """Return the sizes that the vocabulary and the configuration fix."""
    wearable = vocabulary.wearable
    return ModelShape(
        tokens=vocabulary.n_tokens,
        codes=vocabulary.n_codes,
        mask_token=MASK_TOKEN,
        targets=max(1, len(vocabulary.targets)),
        panel=vocabulary.panel,
        soft_tokens=soft_tokens(config.model),
        windows=wearable.windows if wearable else 0,
        features=wearable.features if wearable else 0,
        pieces=len(config.train.horizons_days),
        target_rates=vocabulary.target_rates,
        label_rate=vocabulary.label_rate,
        channels=len(wearable.channels) if wearable else 0,
        cross_horizons=len(config.train.cross_horizons_days),
        spread=len(SPREAD) if config.tokens.bin_spread else 0,
    )


def model_for(study: Study, modalities: frozenset[str] | None = None) -> HealthFM:
    """Return a freshly initialised model with the encoders of `modalities` (None: the study's).

    Which numbers it starts from depends on the study's seed alone.
    """
    wanted = frozenset(study.modalities)
    held = wanted if modalities is None else wanted & modalities
    shape = shape_of(study.vocabulary, study.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(study.config.seed, "initial"))
        return HealthFM(
            study.config.model,
            shape,
            encoders=held,
            heads=heads_for(study.config.train.objectives, held),
        )


def initial_parameters(study: Study) -> Float32Arrays:
    """Return the parameters of every group of the study as round 1 starts from them."""
    return model_for(study).arrays()


def compute_device() -> torch.device:
    """Return the first GPU this process may see (``CUDA_VISIBLE_DEVICES`` says which), or the CPU.

    What a site computes on is the site's own affair, so no study configures it.
    """
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def loaded_model(
    parameters: Mapping[str, Float32],
    study: Study,
    modalities: frozenset[str],
    intercepts: Intercepts | None = None,
) -> HealthFM:
    """Return the site's model with its parameters set from the server's.

    Args:
        parameters: The server's.
        study: Contract of the run.
        modalities: What the site holds.
        intercepts: The site's own (`site_intercepts`); None for a site without any.
    """
    device = compute_device()
    model = model_for(study, modalities).to(device)
    model.load_arrays(parameters)
    for name, values in (intercepts or {}).items():
        if name in model.heads:
            model.intercepts[name] = torch.from_numpy(values).to(device)
    return model
