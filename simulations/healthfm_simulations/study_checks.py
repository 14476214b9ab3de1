"""What a study asks, held against its sites' stores before anything is trained."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.config import RunConfig
from healthfm_core.config.evaluation import NEXT_VISIT_TASK
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_core.modalities.registry import modality_names
from healthfm_core.training.site_data import training_splits
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.sites import SimulatedSite

ANSWERS: Final = {False: "no", True: "yes"}


def check_study(
    config: RunConfig, sites: Sequence[SimulatedSite], folds: Sequence[CrossValidationFold]
) -> None:
    """Refuse a study that its sites' stores cannot answer.

    Args:
        config: What is asked.
        sites: All sites of the run.
        folds: Who is trained on, and who is tested.

    Raises:
        ConfigError: HF-102 for a task, device or modality that no site has, or a site with nothing
            that it may use; HF-103 where what is judged is not trained, or labels have one answer.
    """
    _check_judged(config)
    _check_modalities(config, sites)
    _check_device(config, sites)
    for fold in folds:
        for key, task, of in _label_tables(config, fold):
            _check_tables(key, task, of)
        if config.label_task is not None:
            _check_answers(config, fold)


def _check_judged(config: RunConfig) -> None:
    """Refuse to judge by a head that is not trained."""
    task = config.evaluation.task
    head = "next_visit" if task == NEXT_VISIT_TASK else "label"
    if getattr(config.train.objectives, head) > 0:
        return
    others = "evaluation.task=NAME names a label" if head == "next_visit" else "train=label_tabular"
    raise ConfigError(
        103,
        where=f"evaluation.task={task}",
        seen=f"it is judged by the head {head}, and train.objectives.{head} is 0",
        wanted="what is judged is trained",
        do=f"Write train.objectives.{head}=1; or {others}",
    )


def _label_tables(
    config: RunConfig, fold: CrossValidationFold
) -> Iterable[tuple[str, str, tuple[SimulatedSite, ...]]]:
    """Yield (key, label table, sites that need it)."""
    if config.evaluation.task != NEXT_VISIT_TASK:
        yield "evaluation.task", config.evaluation.task, fold.test
    if config.label_task is not None:
        named = "evaluation.task" if config.train.label_task is None else "train.label_task"
        yield named, config.label_task, fold.train


def _check_tables(key: str, task: str, sites: Sequence[SimulatedSite]) -> None:
    tables = {site.name: SiteStore.open(site.path).tasks for site in sites}
    lacking = [name for name, tasks in tables.items() if task not in tasks]
    if not lacking:
        return
    if len(lacking) < len(tables):
        raise ConfigError(
            102,
            where=f"{key}={task}",
            seen=f"{_named(lacking)} {'has' if len(lacking) == 1 else 'have'} no such labels",
            wanted="every site that is trained on or tested has them",
            do=f"Make them: healthfm-client labels STORE FILE --name {task}; or leave the site out",
        )
    known = sorted(set().union(*tables.values()))
    raise _unknown(
        f"{key}={task}",
        "no site has labels of that name",
        known,
        task,
        "labels",
        "Make them: healthfm-client labels STORE FILE",
        key,
    )


def _check_answers(config: RunConfig, fold: CrossValidationFold) -> None:
    """Refuse labels that are all the same, or none, among those trained on or those tested."""
    task = config.label_task or ""
    _check_both(task, fold, "trained on", _answers(fold.train, task, training_splits(config)))
    if config.evaluation.task != NEXT_VISIT_TASK:
        task = config.evaluation.task
        _check_both(task, fold, "tested", _answers(fold.test, task, (fold.split,)))


def _check_both(task: str, fold: CrossValidationFold, who: str, answers: set[bool]) -> None:
    if len(answers) == 2:
        return
    said = f'the answer to all labels is "{ANSWERS[min(answers)]}"' if answers else "no label"
    raise ConfigError(
        103,
        where=f"labels {task}, {fold.name}",
        seen=f"{said} among the people who are {who}",
        wanted="people with the outcome and people without it",
        do="Look at the labels: healthfm-client describe STORE",
    )


def _answers(
    sites: Sequence[SimulatedSite], task: str, splits: Collection[str | None]
) -> set[bool]:
    found: set[bool] = set()
    for site in sites:
        store = SiteStore.open(site.path)
        people = np.concatenate([store.subjects(split) for split in splits])
        labels = store.labels(task)
        its = labels.filter(pc.is_in(labels["subject_id"], pa.array(people)))
        found |= set(its["boolean_value"].drop_null().unique().to_pylist())
    return found


def _check_device(config: RunConfig, sites: Sequence[SimulatedSite]) -> None:
    device = config.tokens.device
    known = sorted({name for site in sites for name in SiteStore.open(site.path).devices})
    if device is not None and device not in known:
        raise _unknown(
            f"tokens.device={device}",
            "no site has a device of that name",
            known,
            device,
            "devices",
            "Leave tokens.device out: every device is read",
            "tokens.device",
        )


def _check_modalities(config: RunConfig, sites: Sequence[SimulatedSite]) -> None:
    held = {site.name: SiteStore.open(site.path).modalities for site in sites}
    for site in sites:
        allowed = set(modality_names() if site.modalities is None else site.modalities)
        if not allowed & held[site.name]:
            by = config.data.modalities.get(site.name) is not None
            key = f"data.modalities.{site.name}" if by else "data.cycle_modalities"
            raise ConfigError(
                102,
                where=key if site.modalities is not None else site.name,
                seen=f"it leaves {site.name} nothing: its store holds "
                + (_named(sorted(held[site.name])) or "no modality"),
                wanted="every site has something that it may use",
                do="Allow what it holds, or leave the site out",
            )
    anywhere = set[str]().union(*held.values())
    for given in config.evaluation.inputs:
        missing = sorted(set(given.split("+")) - anywhere)
        if missing:
            raise ConfigError(
                102,
                where=f"evaluation.inputs={given}",
                seen=f"no site holds {missing[0]}",
                wanted=f"the sites hold {_named(sorted(anywhere))}",
                do="Leave it out",
            )


def _unknown(
    where: str, seen: str, known: Sequence[str], name: str, what: str, none: str, key: str
) -> ConfigError:
    """Return the refusal of a name that no site has, with the nearest that one has."""
    if not known:
        return ConfigError(102, where=where, seen=seen, wanted=f"the sites have no {what}", do=none)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return ConfigError(
        102,
        where=where,
        seen=seen,
        wanted=f"the sites' {what} are {', '.join(known)}",
        do=f"Write {key}={nearest}",
    )


def _named(names: Sequence[str], most: int = 6) -> str:
    *first, last = names[:most] or [""]
    shown = f"{', '.join(first)} and {last}" if first else last
    return (
        shown if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
    )
