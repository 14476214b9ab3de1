"""A trained model's predictions for the people of test sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Bool, Float32, Int32, Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_core.evaluation import Predictions
from healthfm_core.federation.protocol import Study
from healthfm_core.models.inference import Answers, answer
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.training import Intercepts, SiteData, loaded_model, loader_for
from healthfm_simulations.cohort import is_condition, scores_at
from healthfm_simulations.cohort.oracle_predictions import OracleInformation
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.partition import RecordCuts
from healthfm_simulations.partition.code_habits import condition_of
from healthfm_simulations.sites import SimulatedSite

NEXT_VISIT = "next_visit"
EVERYTHING = "all"
"""Name of the input subset that gives a model whatever the site holds."""


@dataclass(frozen=True)
class Model:
    """A finished model.

    Attributes:
        study: The contract it was trained under.
        parameters: By name.
        with_site_intercepts: Whether each site that is scored trained it as a site of its own,
            and so answers with its own intercepts.
    """

    study: Study
    parameters: Mapping[str, Float32]
    with_site_intercepts: bool = False


@dataclass(frozen=True)
class ScoredQueries:
    """Predictions, and which queries they answer.

    Attributes:
        predictions: n·V rows, query by query, the same order in every arm.
        site: [n] int32, index of the query's site.
        subject_id: [n] int64.
        time_us: [n] int64, the query's own time.
        targets: V names; one empty name for a label task.
    """

    predictions: Predictions
    site: Int32
    subject_id: Int64
    time_us: Int64
    targets: tuple[str, ...]


def score(
    model: Model,
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    config: RunConfig,
    inputs: str = EVERYTHING,
    *,
    corrupt: Callable[[Sequences], Sequences] | None = None,
) -> ScoredQueries:
    """Return the predictions for the fold's test people, in the same order for every arm.

    Args:
        model: What to ask; a modality it has no encoder for is not given to it.
        fold: Whose people, and which of them.
        sites: All sites of the run, whose positions are the sites' indices.
        config: The run's configuration.
        inputs: ``all``, or modalities joined by ``+``: the model is given these and no others.
        corrupt: What is done to the people's records before the model reads them.
    """
    index = {site.name: i for i, site in enumerate(sites)}
    parts = [
        _score_site(model, site, index[site.name], fold, config, inputs, corrupt)
        for site in fold.test
    ]
    return concatenate(parts)


def concatenate(parts: Sequence[ScoredQueries]) -> ScoredQueries:
    """Return the queries of all parts, which asked about the same targets."""
    return ScoredQueries(
        Predictions.concatenate([part.predictions for part in parts]),
        np.concatenate([part.site for part in parts]),
        np.concatenate([part.subject_id for part in parts]),
        np.concatenate([part.time_us for part in parts]),
        parts[0].targets,
    )


def answered_by_all(arms: Mapping[str, ScoredQueries]) -> dict[str, ScoredQueries]:
    """Return each arm's answers to the queries that every arm with answers at that site answered.

    A model that reads more of a person keeps less of a long history, and so may lack the queries
    of the earliest visits that a model of fewer modalities still answers.
    """
    keys = {arm: list(_query_keys(answered)) for arm, answered in arms.items()}
    asked = {arm: set(answered) for arm, answered in keys.items()}
    covered = {arm: {key[0] for key in answered} for arm, answered in asked.items()}
    common = {
        key
        for key in set().union(*asked.values())
        if all(key in asked[arm] or key[0] not in covered[arm] for arm in arms)
    }
    return {
        arm: _of_queries(answered, np.array([key in common for key in keys[arm]], bool))
        for arm, answered in arms.items()
    }


def _query_keys(scored: ScoredQueries) -> Iterator[tuple[int, int, int]]:
    """Yield (site, subject, time) of each query."""
    columns = (scored.site.tolist(), scored.subject_id.tolist(), scored.time_us.tolist())
    return zip(*columns, strict=True)


def _of_queries(scored: ScoredQueries, keep: Bool) -> ScoredQueries:
    if keep.all():
        return scored
    return ScoredQueries(
        scored.predictions.where(np.repeat(keep, len(scored.targets))),
        scored.site[keep],
        scored.subject_id[keep],
        scored.time_us[keep],
        scored.targets,
    )


def _score_site(
    model: Model,
    site: SimulatedSite,
    index: int,
    fold: CrossValidationFold,
    config: RunConfig,
    inputs: str,
    corrupt: Callable[[Sequences], Sequences] | None,
) -> ScoredQueries:
    store = view_of(model, site, inputs)
    task = None if config.evaluation.task == NEXT_VISIT else config.evaluation.task
    sequences = tokenize(
        [store], model.study.vocabulary, config.tokens, split=fold.split, task=task
    )
    sequences = corrupt(sequences) if corrupt else sequences
    network = loaded_model(
        model.parameters, model.study, store.modalities, intercepts_of(model, fold.trained_as(site))
    )
    batches = loader_for(sequences, model.study).in_order(
        batch_size=2 * config.train.batch_size, query="sep" if task is None else "label"
    )
    answers = answer(network, batches, NEXT_VISIT if task is None else "label")
    subject_id = sequences.subject_id[answers.subject]
    order = np.lexsort((answers.time_us, subject_id))
    subject_id, answers = subject_id[order], _take(answers, order)
    key = np.searchsorted(store.subjects(fold.split), subject_id) + (np.int64(index) << 32)
    where = np.full(len(key), index, np.int32)
    if task is None:
        judged = judged_targets(model.study.vocabulary.targets, config)
        columns = np.flatnonzero(judged)
        names = tuple(model.study.vocabulary.targets[i] for i in columns)
        outcome, repeats = answers.target[:, columns], answers.repeats[:, columns]
        asked = answers.score[:, columns], outcome, repeats
        if config.data.source == "cohort" and config.data.cohort.code_variants > 1:
            names, either = by_condition(names, asked[0])
            asked = either, *_what_happened(site, subject_id, answers.time_us, names)
    else:
        names = ("",)
        nothing = np.zeros((len(key), 1), np.float32)
        asked = answers.score[:, :1], answers.label[:, None] > 0, nothing
    predictions = Predictions.of_queries(key, where, *asked, answers.time_us)
    scored = ScoredQueries(predictions, where, subject_id, answers.time_us, names)
    if fold.late_days is None:
        return scored
    cuts = RecordCuts.of(SiteStore.open(site.path), fold.late_days)
    return _of_queries(scored, ~cuts.is_early(subject_id, answers.time_us))


def intercepts_of(model: Model, site: SimulatedSite) -> Intercepts | None:
    """Return the intercepts the site trained with, counted again on what it trained on."""
    return (
        SiteData.load([site.view()], model.study).intercepts if model.with_site_intercepts else None
    )


def readable(model: Model, site: SimulatedSite, inputs: str) -> frozenset[str]:
    """Return the modalities that the site holds, the model has encoders for and `inputs` shows."""
    return frozenset(_usable(model, site, inputs) & SiteStore.open(site.path).modalities)


def _usable(model: Model, site: SimulatedSite, inputs: str) -> set[str]:
    allowed = site.modalities if inputs == EVERYTHING else tuple(inputs.split("+"))
    usable = set(model.study.modalities)
    return usable if allowed is None else usable & set(allowed)


def view_of(model: Model, site: SimulatedSite, inputs: str = EVERYTHING) -> SiteStore:
    """Return what the model may read of the site's store."""
    usable = _usable(model, site, inputs)
    return SiteStore.open(site.path, modalities=usable)


def judged_targets(targets: Sequence[str], config: RunConfig) -> Bool:
    """Return which targets are judged [V]: in the simulated cohort the conditions, else all."""
    if config.data.source == "cohort":
        return is_condition(targets)
    return np.ones(len(targets), np.bool_)


def _what_happened(
    site: SimulatedSite, subject_id: Int64, time_us: Int64, conditions: Sequence[str]
) -> tuple[Bool, Float32]:
    """Return which conditions [n, C] visits held and how many earlier ones did, by the truth.

    A study misses the rarest codes below a condition: what its tokens say would leave those out.
    """
    where = (site.path.parent, site.name, subject_id, time_us, conditions)
    outcome = scores_at(*where, information="outcome")
    return outcome > 0, scores_at(*where, information="repeats")


def check_what_is_judged(config: RunConfig) -> None:
    """Refuse what judges single codes, where sites write a condition under several.

    Raises:
        ConfigError: HF-103.
    """
    if config.data.source != "cohort" or config.data.cohort.code_variants == 1:
        return
    asks = {
        "simulation.baselines": config.simulation.baselines,
        "evaluation.horizons_days": bool(config.evaluation.horizons_days),
        "evaluation.probes_days": bool(config.evaluation.probes_days),
        "evaluation.heritable": config.evaluation.heritable,
    }
    for key in (key for key, is_asked in asks.items() if is_asked):
        raise ConfigError(
            103,
            where="data.cohort.code_variants",
            seen=f"{config.data.cohort.code_variants}, and {key}, which judges single codes",
            wanted="conditions that are judged whatever code they stand under",
            do=f"Leave {key} out, or set data.cohort.code_variants=1",
        )


def by_condition(names: tuple[str, ...], score: Float32) -> tuple[tuple[str, ...], Float32]:
    """Return what is said of the simulated cohort's conditions, of which some have several codes.

    A condition occurs where one of its codes does: with probability 1 − Π(1 − p), taken as
    independent.

    Args:
        names: V codes, see `code_habits`.
        score: [n, V] probabilities.

    Returns:
        The C conditions, by their first code, and their probabilities [n, C].
    """
    conditions = tuple(dict.fromkeys(map(condition_of, names)))
    groups = [[i for i, n in enumerate(names) if condition_of(n) == c] for c in conditions]
    either = [1 - np.prod(1 - score[:, of], axis=1) for of in groups]
    return conditions, np.stack(either, axis=1).astype(np.float32)


def _take(answers: Answers, rows: npt.NDArray[np.intp]) -> Answers:
    return Answers(**{name: getattr(answers, name)[rows] for name in Answers.__dataclass_fields__})


def oracle_predictions_for(
    scored: ScoredQueries, sites: Sequence[SimulatedSite], information: OracleInformation
) -> Predictions:
    """Return the oracle's predictions on exactly the rows of `scored`.

    Args:
        scored: A model's answers on the simulated cohort.
        sites: All sites of the run.
        information: What the oracle knows, see `healthfm_simulations.cohort.ceiling`.
    """
    truth = np.empty((len(scored.site), len(scored.targets)), np.float32)
    for i in np.unique(scored.site):
        rows = np.flatnonzero(scored.site == i)
        path = sites[i].path
        truth[rows] = scores_at(
            path.parent,
            sites[i].name,
            scored.subject_id[rows],
            scored.time_us[rows],
            scored.targets,
            information=information,
        )
    return replace(scored.predictions, score=truth.ravel())
