"""What a report shows beside the rows of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from healthfm_core.evaluation.analyses.missing_inputs import CorruptionRow, MatrixCell
from healthfm_core.evaluation.analyses.probes import ProbeRow
from healthfm_core.evaluation.analyses.smoothness import SmoothnessRow
from healthfm_core.evaluation.analyses.subgroups import SubgroupRow
from healthfm_core.evaluation.metrics.calibration_error import Reliability
from healthfm_core.evaluation.metrics.metric_rows import MetricRow
from healthfm_core.evaluation.predictions import Predictions
from healthfm_core.evaluation.time_to_accuracy import CourseRow
from healthfm_core.federation.input_overlap import InputOverlap


@dataclass(frozen=True)
class SiteSummary:
    """One site, as the sites × modalities matrix shows it.

    Attributes:
        name: The site's name; its position in `ReportContext.sites` is its index in `Predictions`.
        modalities: Those the site used, of ehr, wearable, genomics.
        n_subjects: People at the site; shown as ``< k`` below the threshold.
        n_held_out: Of these, people the models were tested on; None where the site tells nothing.
    """

    name: str
    modalities: frozenset[str]
    n_subjects: int
    n_held_out: int | None = 0


@dataclass(frozen=True)
class SiteParticipation:
    """What one site did in a federation's rounds.

    Attributes:
        site: Its name.
        asked: Rounds in which it was asked.
        answered: Rounds in which its update was taken, held back or not.
        held_back: Of these, rounds in which it counted for less than it said.
        late: Rounds by whose end nothing had come.
        refused: Rounds in which its answer was not taken, or it took no part.
        answer_s: Mean seconds until its answer, over the newest rounds; None where not counted.
        epsilon: Largest ε it told of its people; None where it told none.
        reasons: Why it was left out, each once, the newest first.
    """

    site: str
    asked: int
    answered: int
    held_back: int
    late: int
    refused: int
    answer_s: float | None = None
    epsilon: float | None = None
    reasons: Sequence[str] = ()


@dataclass(frozen=True)
class HalfLives:
    """Half-lives of the attention kernel's decay, in days.

    Attributes:
        learned: ``layer 0`` → one value per head and rate.
        true: The half-lives the data was made with, where they are known.
    """

    learned: Mapping[str, Sequence[float]]
    true: Sequence[float] = ()


@dataclass(frozen=True)
class ReportContext:
    """Everything a report says that is not a row of metrics; a part left empty is not shown.

    Attributes:
        task: ``next_visit`` or the label table's name, as in the rows.
        reference: The arm the others are held against.
        lead: One or two sentences under the title: who, where, what was asked.
        command: What was run to get here.
        k_subgroup: Counts below it are withheld, and so are sites and bins with fewer.
        sites: The sites, in the order of their index.
        predictions: Arm → predictions, for reliability diagrams and the comparison by site.
        coverage: Site → what it answered to the study before round 1, see `tokens.coverage`.
        inputs: Which wearable channels and scores the sites have; None is not known.
        units_apart: Codes in units of which no two sites share one.
        rolled_up: What rolling codes up to common ancestors changed, '' where none were.
        remarks: input subset, ``all`` or as in the rows → arm → what its row leaves out of the
            inputs, or why it has none.
        history: Arm → a record per round: ``round`` and numbers by name, nested or not. Of those
            the page plots up to four, tuning metrics first, then losses.
        site_history: Site → the same of its own people, where sites tell it.
        site_rows: Site → rows of its own people: of each arm, and of the differences.
        reliabilities: Name → predicted against observed risk, where no predictions are at hand.
        participation: What each site did in the rounds of a real federation.
        facts: What and its value, of the run itself: names, fingerprints, what it cost.
        alarms: Sentences, each with the round in which it began.
        as_of: When it was made, of a run that goes on; None: it is final.
        ceiling: Rows of the oracle's own score (any arm names), on a simulated cohort.
        half_lives: Of the reference arm's kernel.
        seconds: Arm → wall-clock seconds.
        course: What it took each arm to be as good as a target, in a simulated network.
        horizons: Rows of `horizons.horizon_rows` and of `horizons.time_to_event_rows`.
        probes: Rows of `probes.linear_probe`, of every arm and task.
        probe_scores: Rows with intervals of the probes on all labels, by the same task names.
        physiology: Rows of `physiology.ridge_probe`; the task is the quantity.
        seeds: How many the values are means over; intervals are then over seeds, not over people.
        figures: Single figures of any task and metric, shown as they are.
        smoothness: A row per arm.
        subgroups: Rows of `subgroups.subgroup_rows`.
        missing: Cells of `missing_inputs.missing_matrix`.
        corruption: Rows of `missing_inputs.corruption_rows`.
        config: The run's configuration as YAML text.
        notes: Plain sentences shown under the tables: what was not done, what to beware of.
    """

    task: str
    reference: str = "federated"
    lead: str = ""
    command: str = ""
    k_subgroup: int = 20
    sites: Sequence[SiteSummary] = ()
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    coverage: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    inputs: InputOverlap | None = None
    units_apart: Sequence[str] = ()
    rolled_up: str = ""
    remarks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    history: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    site_history: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    site_rows: Mapping[str, Sequence[MetricRow]] = field(default_factory=dict)
    reliabilities: Mapping[str, Reliability] = field(default_factory=dict)
    participation: Sequence[SiteParticipation] = ()
    facts: Sequence[tuple[str, str]] = ()
    alarms: Sequence[str] = ()
    as_of: str | None = None
    ceiling: Sequence[MetricRow] = ()
    half_lives: HalfLives | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    course: Sequence[CourseRow] = ()
    horizons: Sequence[MetricRow] = ()
    probes: Sequence[ProbeRow] = ()
    probe_scores: Sequence[MetricRow] = ()
    physiology: Sequence[MetricRow] = ()
    figures: Sequence[MetricRow] = ()
    smoothness: Sequence[SmoothnessRow] = ()
    subgroups: Sequence[SubgroupRow] = ()
    missing: Sequence[MatrixCell] = ()
    corruption: Sequence[CorruptionRow] = ()
    seeds: int = 1
    config: str = ""
    notes: Sequence[str] = ()
