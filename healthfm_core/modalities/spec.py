"""What HealthFM has to know about a modality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from healthfm_core.arrays import Bool, Int64

DataForm = Literal["codes", "samples", "panel"]


@runtime_checkable
class PersonRecords(Protocol):
    """The columns of `data.batch.sequences.Sequences` that tell who has a modality."""

    @property
    def n_subjects(self) -> int:
        """S."""

    @property
    def items_worn(self) -> Int64:
        """[S] how many wearable tokens each has."""

    @property
    def panel_mask(self) -> Bool:
        """[S, P] which values of the panels are present."""

    @property
    def panel_names(self) -> tuple[str, ...]:
        """P names of the panels' columns."""


@dataclass(frozen=True, kw_only=True)
class ModalitySpec:
    """One modality: its name, its data and how people read about it.

    Attributes:
        name: As configurations, messages and parameters name it (``encoders.<name>.*``).
        order: Its place among the modalities. Encoders are built and random numbers drawn in this
            order, so a new modality takes a number after all others.
        form: How its data lie in a site's store, and how they reach a batch.
            ``codes``: clinical events, which become tokens; one modality has this form, and every
            code without another modality's prefix is its own.
            ``samples``: regular samples of a device in a folder of their own, and summaries of
            them among the events; one modality has this form too.
            ``panel``: one vector of named numbers per person. Each number is an event without a
            time whose code is `code_prefix` and its name; values are in standard deviations from
            the mean, and the reader makes them so.
        described_as: How a sentence for people names its data: "clinical records".
        value_described_as: How a sentence names one value or row: "polygenic score".
        code_prefix: What its codes start with; empty for ``codes``.
        events_counted_as: Key of its events in a store's summary.
        holders: Returns [S], the people from whose data it can be learned. None goes by the form:
            of a panel whoever has a value of it, of codes everyone (in a study with a label,
            everyone with a label).
        short_columns: Whether a panel's columns are named without `code_prefix`. Vocabularies of
            release 0.1.0 name polygenic scores so; a new panel keeps its prefix.
    """

    name: str
    order: int
    form: DataForm
    described_as: str
    value_described_as: str
    events_counted_as: str
    code_prefix: str = ""
    holders: Callable[[PersonRecords], Bool] | None = None
    short_columns: bool = False
