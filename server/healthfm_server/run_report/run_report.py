"""A run's report, as far as its sites tell: from its folder, while it goes on too."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from healthfm_core.config.compose import to_yaml
from healthfm_core.evaluation.metrics.calibration_error import Reliability
from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_core.evaluation.report.report_context import ReportContext, SiteSummary
from healthfm_core.evaluation.report.report_page import REPORT_FILE, write_report
from healthfm_core.evaluation.report.sections.training_curves import MOST_SITES
from healthfm_core.federation.code_overlap import (
    MOST_LISTED,
    told_coverage,
    told_roll_up,
    told_units,
)
from healthfm_core.federation.input_overlap import told_inputs
from healthfm_core.held_out.risk_bins import reliability_of
from healthfm_core.held_out.site_evaluation import SiteEvaluation
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.told_gains import told_gains
from healthfm_server.page.run_history import RunHistory, figures_at
from healthfm_server.run_folder.held_out_file import HeldOutTold
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.run_report.held_out_rows import (
    pooled_groups,
    pooled_rows,
    row_values,
    site_evaluations,
)
from healthfm_server.run_report.participation import participation
from healthfm_server.run_report.report_facts import report_facts

FOLDER: Final = "report"
"""In the run's folder."""
DATA_FILE: Final = "report.json"
CLOCK_NS: Final = 20_000_000
"""By how much the time of a file may be before the clock's."""
GOES_ON: Final = ("waiting", "running", "paused")


@dataclass(frozen=True)
class RunReport:
    """What is told of a run.

    Attributes:
        title: Of the page.
        rows: Metrics with intervals.
        context: What stands beside them.
        latest: Metric → its mean over the sites, in the newest round.
        site_latest: Site → metric → its own, in the newest round.
        read_ns: Unix time before which everything is in it, in nanoseconds.
    """

    title: str
    rows: Sequence[MetricRow]
    context: ReportContext
    latest: Mapping[str, float]
    site_latest: Mapping[str, Mapping[str, float]]
    read_ns: int

    @classmethod
    def of(cls, folder: StudyFolder, order: RunOrder) -> RunReport:
        """Read the run's folder.

        Raises:
            HealthFMError: What stands there cannot be read (HF-404, HF-703).
        """
        read_ns = time.time_ns() - CLOCK_NS
        history = RunHistory(order.folder)
        history.look()
        store, config = RunStore(order.folder, keep=1), order.config()
        study, events = store.study(), store.events()
        told = HeldOutTold.read(order.folder)
        judged = site_evaluations(told, config.evaluation.task, told_gains(order.folder))
        is_over = order.status().state not in GOES_ON
        context = ReportContext(
            task=config.evaluation.task,
            lead=_lead(order, history, is_over=is_over),
            k_subgroup=config.evaluation.k_subgroup,
            sites=tuple(_sites(events, judged)),
            site_rows={site: found.rows for site, found in judged.items() if found.rows},
            reliabilities=dict(_reliabilities(judged)),
            subgroups=pooled_groups(judged),
            coverage=told_coverage(events),
            inputs=told_inputs(events),
            units_apart=told_units(events)[:MOST_LISTED],
            rolled_up=told_roll_up(events),
            history={"federated": list(_records(history))},
            site_history=dict(_site_records(history)),
            participation=participation(history, order.folder),
            facts=tuple(report_facts(folder, order, history, study)),
            as_of=None if is_over else _time_of(read_ns),
            config=to_yaml(config),
            alarms=tuple(_alarms(events)),
            notes=tuple(_notes(history, events, told)),
        )
        newest = len(history.rounds) - 1
        own = {site: figures_at(_of_site(history, site), newest) for site in sorted(history.sites)}
        title = f"{folder.settings.study}: {order.name}"
        return cls(
            title, pooled_rows(judged), context, figures_at(history.figures, newest), own, read_ns
        )

    def write(self, folder: Path) -> Path:
        """Write page and data to `folder`, each whole or not at all; return the page's path.

        Their time is that of what they were made of: a run that has changed since is newer.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as draft:
            made = Path(draft)
            write_report(made, title=self.title, rows=self.rows, context=self.context)
            (made / DATA_FILE).write_text(json.dumps(self.as_values(), indent=1) + "\n", "utf-8")
            for file in sorted(made.iterdir()):
                os.utime(file, ns=(self.read_ns, self.read_ns))
                os.replace(file, folder / file.name)
        return folder / REPORT_FILE

    def as_values(self) -> dict[str, Any]:
        """Return the report as plain values: what the API answers."""
        return {
            "title": self.title,
            "is_final": self.context.as_of is None,
            "facts": [{"what": what, "value": value} for what, value in self.context.facts],
            "participation": [asdict(site) for site in self.context.participation],
            "metrics": dict(self.latest),
            "site_metrics": {site: dict(own) for site, own in self.site_latest.items() if own},
            "held_out": [row_values(row) for row in self.rows],
            "site_held_out": {
                site: [row_values(row) for row in rows]
                for site, rows in self.context.site_rows.items()
            },
            "alarms": list(self.context.alarms),
            "notes": list(self.context.notes),
        }


def _reliabilities(judged: Mapping[str, SiteEvaluation]) -> Iterator[tuple[str, Reliability]]:
    """Yield each site's predicted against observed risk, where they are few enough to be seen."""
    drawn = {site: found.bins for site, found in judged.items() if found.bins}
    if len(drawn) <= MOST_SITES:
        yield from ((site, reliability_of(bins)) for site, bins in drawn.items())


def _lead(order: RunOrder, history: RunHistory, *, is_over: bool) -> str:
    rounds, done = order.config().federation.rounds, len(history.rounds)
    sites = len(history.sites)
    if is_over:
        return f"{sites} sites, {done} of {rounds} rounds."
    return f"This run goes on: {sites} sites, {done} of {rounds} rounds so far."


def _sites(
    events: Sequence[Mapping[str, Any]], judged: Mapping[str, SiteEvaluation]
) -> Iterator[SiteSummary]:
    known = {event["site"]: event for event in events if event["event"] == "prepared"}
    for name in sorted(known):
        held = frozenset(known[name]["modalities"])
        yield SiteSummary(
            name, held, int(known[name]["subjects"]), n_held_out=_held_out(judged.get(name))
        )


def _held_out(found: SiteEvaluation | None) -> int | None:
    """Return of how many held-out people a site told something; None where it told nothing."""
    return max((row.n_subjects for row in found.rows), default=None) if found else None


def _records(history: RunHistory) -> Iterator[dict[str, float]]:
    """Yield each round's means; a round's scores are of the model that it began with."""
    for at, number in enumerate(history.rounds):
        yield {"round": float(number), **figures_at(history.figures, at)}


def _site_records(history: RunHistory) -> Iterator[tuple[str, list[dict[str, float]]]]:
    for site in sorted({site for own in history.site_figures.values() for site in own}):
        own = _of_site(history, site)
        yield (
            site,
            [
                {"round": float(number), **figures_at(own, at)}
                for at, number in enumerate(history.rounds)
            ],
        )


def _of_site(history: RunHistory, site: str) -> dict[str, Any]:
    return {name: own[site] for name, own in history.site_figures.items() if site in own}


def _time_of(unix_ns: int) -> str:
    """Return a time for a person: ``2026-11-25 12:06:31 UTC``."""
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _alarms(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for event in events:
        if event["event"] == "alarm":
            yield f"Round {event['round']}: {event['reason']}"


def _notes(
    history: RunHistory, events: Sequence[Mapping[str, Any]], told: HeldOutTold | None
) -> Iterator[str]:
    if told is not None and told.metrics:
        yield (
            f"Figures on held-out people are of the model after round {told.round}, as the sites "
            "computed them; over all sites they are means by people, with intervals that follow "
            "from the sites’ own."
        )
    for site, reason in sorted(told.set_aside.items() if told else ()):
        yield f"{site} told nothing of its held-out people: {reason}"
    for event in events:
        if event["event"] == "round chosen":
            yield f"{event['reason']}."
    if history.rounds and not history.site_figures:
        yield (
            "No site’s own figures are told: the run’s sums are secure, or the sites’ policies "
            "keep them."
        )
