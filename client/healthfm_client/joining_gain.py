"""Does my hospital gain by joining? The shared model and the site's own, on the same people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from healthfm_client.core_local_work import CoreLocalWork, opened
from healthfm_client.local_work import StoreSpec
from healthfm_core.arrays import Float32
from healthfm_core.errors import RunError
from healthfm_core.evaluation import MetricRow, Predictions
from healthfm_core.evaluation.metrics.report_metrics import METRICS, metric_title
from healthfm_core.evaluation.report.report_page import ReportContext, SiteSummary, write_report
from healthfm_core.evaluation.report.sections.table_layout import headline
from healthfm_core.evaluation.report.wording import bracketed, subset_name
from healthfm_core.federation.protocol import Study
from healthfm_core.held_out.held_out_people import HeldOutPeople, may_be_judged
from healthfm_core.held_out.site_evaluation import ALONE, FEDERATED, GAIN, SiteEvaluation
from healthfm_core.held_out.train_alone import AloneModel, train_alone
from healthfm_core.seeding import numpy_generator
from healthfm_core.trust import files

FOLDER: Final = "gain"
"""Beside a finished model."""
NUMBERS: Final = "gain.json"
DIGITS: Final = 3
"""As they are shown: an end that reads +.000 is no end beyond 0."""


@dataclass(frozen=True)
class JoiningGain:
    """What was measured.

    Attributes:
        study: Of the shared model.
        name: Of its run.
        alone: The site's own model.
        arms: Both models' predictions for the same people.
        evaluation: What they come to, with intervals; empty where the people are too few.
        people: Training people of the site.
        k: Of fewer people nothing is said.
    """

    study: Study
    name: str
    alone: AloneModel
    arms: Mapping[str, Predictions]
    evaluation: SiteEvaluation
    people: int
    k: int

    @classmethod
    def measured(
        cls,
        study: Study,
        shared: Mapping[str, Float32],
        stores: tuple[StoreSpec, ...],
        *,
        name: str,
        k: int,
        start: Mapping[str, Float32] | None = None,
        show: Callable[[int, int], None],
    ) -> JoiningGain:
        """Train the site's own model, and ask both about the held-out people.

        Args:
            study: Of the shared model.
            shared: The shared model.
            stores: The site's.
            name: Of the run.
            k: Of fewer people nothing is said.
            start: What the study's model started from, where that was a trained one.
            show: Told after each round of the site's own model.

        Raises:
            RunError: The run trained or judges nothing that could be compared here (HF-730).
        """
        data = CoreLocalWork().load(stores, study)
        if not may_be_judged(study, data.modalities):
            raise RunError(
                730,
                where=f"run {name}",
                seen="its held-out people train too, or its model has no answer to the run's task",
            )
        held_out = HeldOutPeople.load(opened(stores), study, data.intercepts)
        alone = train_alone(data, study, start=start, show=show)
        arms = {
            FEDERATED: held_out.predictions(shared),
            ALONE: held_out.predictions(alone.parameters),
        }
        config = study.config.evaluation
        rng = numpy_generator(study.config.seed, "held out bootstrap")
        evaluation = SiteEvaluation.of(
            arms, held_out.groups(), task=config.task, k=k, bootstraps=config.bootstraps, rng=rng
        )
        if not any(row.is_difference for row in evaluation.rows):
            raise RunError(
                730,
                where=f"run {name}",
                seen=f"fewer than {k} held-out people here, or none with the outcome",
            )
        people = len(set(data.train.subject_id.tolist()))
        return cls(study, name, alone, arms, evaluation, people, k)

    def write(self, folder: Path, site: str) -> Path:
        """Write the numbers and the page, and return the page's path.

        Args:
            folder: Where to; for its owner alone.
            site: The site's name.
        """
        page = write_report(
            folder,
            title=f"{site}: {self.name}",
            rows=self.evaluation.rows,
            context=self._page(site),
        )
        numbers = json.dumps(self.evaluation.to_metrics()).encode()
        files.replace(folder / NUMBERS, numbers, files.PRIVATE)
        return page

    def _page(self, site: str) -> ReportContext:
        shared = self.arms[FEDERATED]
        held = frozenset(self.study.modalities)
        return ReportContext(
            task=self.study.config.evaluation.task,
            lead=" ".join(self.lines(table=False)),
            k_subgroup=self.k,
            sites=(SiteSummary(site, held, self.people, shared.n_subjects),),
            predictions=self.arms,
            site_rows={site: self.evaluation.rows},
            subgroups=self.evaluation.groups,
            notes=(
                "The site's own model had the study's vocabulary, settings and rounds, trained "
                "without noise, and was chosen among its rounds by the site's tuning people.",
            ),
        )

    def lines(self, *, table: bool = True) -> Iterator[str]:
        """Yield what was found, for a person."""
        yield (
            f"The shared model of run {self.name} and this site's own, asked about the same "
            f"{self.arms[FEDERATED].n_subjects:,} held-out people."
        )
        chosen = f", best on its tuning people after {self.alone.round}"
        yield (
            f"The own model: {self.alone.rounds} rounds on the site's {self.people:,} training "
            f"people alone{chosen if self.alone.scores else ''}."
        )
        if table:
            yield from self._table()
        yield self.verdict()

    def _table(self) -> Iterator[str]:
        found = {(row.arm, row.subset, row.metric): row for row in self.evaluation.rows}
        yield f"  {'':<36}{'shared':>22}{'own':>22}{'gained by joining':>26}"
        for (arm, subset, metric), row in found.items():
            if arm != GAIN:
                continue
            shared, own = found[FEDERATED, subset, metric], found[ALONE, subset, metric]
            what = f"{metric_title(metric)}, {subset_name(subset)}"
            better = " (less is better)" if METRICS[metric].better == "lower" else ""
            cells = f"{bracketed(shared):>22}{bracketed(own):>22}{bracketed(row):>26}"
            yield f"  {what:<36}{cells}{better}"

    def verdict(self) -> str:
        """Return the answer, by the metric that the task is judged by."""
        metric, subset = headline(self.study.config.evaluation.task)
        rows = {(r.subset, r.metric): r for r in self.evaluation.rows if r.arm == GAIN}
        row: MetricRow = rows.get((subset, metric)) or next(iter(rows.values()))
        what = f"{metric_title(row.metric)}, {subset_name(row.subset)}: {bracketed(row)}"
        if round(row.low, DIGITS) > 0:
            return f"This site gains by joining ({what})."
        if round(row.high, DIGITS) < 0:
            return f"This site's own model is better for its people ({what})."
        return f"Whether this site gains is not shown: the interval holds 0 ({what})."
