"""The models that a study's runs ended with, and what the sites said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from healthfm_core.errors import RunError
from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_core.federation.protocol import Study
from healthfm_core.held_out.site_evaluation import FEDERATED
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.registry.model_aliases import ModelAliases
from healthfm_server.run_folder.ended_model import EndedModel
from healthfm_server.run_folder.held_out_file import HeldOutTold
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.run_report.held_out_rows import pooled_rows, row_values, site_evaluations


@dataclass(frozen=True)
class StudyModel:
    """A run's model.

    Attributes:
        run: Name of its run.
        state: Of the run.
        model: Round and fingerprint.
        study: What its sites agreed on.
        aliases: Which it has.
        sites: That trained it.
        judges: Sites that judged it on their held-out people.
        rows: What these found, over all of them, with 95 % intervals; empty where nobody told.
    """

    run: str
    state: str
    model: EndedModel
    study: Study
    aliases: tuple[str, ...]
    sites: tuple[str, ...]
    judges: tuple[str, ...]
    rows: tuple[MetricRow, ...]

    @classmethod
    def of(cls, order: RunOrder, aliases: Mapping[str, Any]) -> StudyModel | None:
        """Return a run's model; None where it has none yet.

        Raises:
            RunError: A file of the run is damaged (HF-703).
        """
        store, model = RunStore(order.folder, keep=1), EndedModel.of(order.folder)
        study = store.study()
        if model is None or study is None:
            return None
        told = HeldOutTold.read(order.folder)
        is_of_it = told is not None and told.round == model.round
        judged = site_evaluations(told if is_of_it else None, study.config.evaluation.task)
        trained = {site for row in store.history() for site in row["answered"]}
        return cls(
            run=order.name,
            state=order.status().state,
            model=model,
            study=study,
            aliases=tuple(name for name, each in aliases.items() if each.run == order.name),
            sites=tuple(sorted(trained)),
            judges=tuple(site for site, found in judged.items() if found.rows),
            rows=tuple(row for row in pooled_rows(judged) if row.arm == FEDERATED),
        )

    def figure(self, subset: str, metric: str) -> MetricRow | None:
        """Return what the sites found in one metric; None where nobody told."""
        rows = (row for row in self.rows if (row.subset, row.metric) == (subset, metric))
        return next(rows, None)

    def as_values(self) -> dict[str, Any]:
        """Return it as plain values: what the API answers."""
        return {
            "run": self.run,
            "run_id": self.study.run_id,
            "state": self.state,
            "round": self.model.round,
            "sha256": self.model.sha256,
            "aliases": list(self.aliases),
            "sites": list(self.sites),
            "judges": list(self.judges),
            "held_out": [row_values(row) for row in self.rows],
        }


def study_models(study: StudyFolder) -> Iterator[StudyModel]:
    """Yield the models of a study's runs, by the run's name.

    Raises:
        RunError: A file of a run, or the aliases', is damaged (HF-703).
    """
    aliases = ModelAliases(study.path, study.runs).all()
    for order in RunOrder.all(study.runs):
        model = StudyModel.of(order, aliases)
        if model is not None:
            yield model


def model_called(study: StudyFolder, name: str) -> StudyModel:
    """Return the model of a run, or the one that has an alias.

    Raises:
        RunError: No run and no alias is called so (HF-722), or it has no model yet (HF-732).
    """
    aliases = ModelAliases(study.path, study.runs).all()
    run = aliases[name].run if name in aliases else name
    model = StudyModel.of(RunOrder.find(study.runs, run), aliases)
    if model is None:
        raise RunError(732, where=f"run {run}", seen="it has no model")
    return model
