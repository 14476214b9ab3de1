"""A fourth modality in this file alone: its spec, its encoder, its data; no file names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config import ModelConfig
from healthfm_core.config.compose import compose
from healthfm_core.config.run import RunConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_core.modalities import registry
from healthfm_core.modalities.spec import ModalitySpec
from healthfm_core.models.encoders.encoder_registry import register_encoder, unregister_encoder
from healthfm_core.models.encoders.modality_encoder import (
    EncoderFactory,
    ModalityEncoder,
    place,
)
from healthfm_core.models.shape import ModelShape
from healthfm_core.training import initial_parameters
from healthfm_simulations.engine import NodeSpec, run_federation
from tests.tokens.small_store import Row, write

NOTES = "notes"
SPEC = ModalitySpec(
    name=NOTES,
    order=3,
    form="panel",
    described_as="letters as vectors",
    value_described_as="number of a letter's vector",
    code_prefix="NOTES//",
    events_counted_as="note_values",
)


class NotesEncoder(ModalityEncoder):
    """One soft token, a linear map of the vector."""

    def __init__(self, columns: slice, slot: int, width: int) -> None:
        super().__init__()
        self.columns, self.slot = columns, slot
        self.inwards = nn.Linear(columns.stop - columns.start, width)

    def tokens(self, batch: Batch) -> Tensor:
        return place(self.inwards(batch.panel[:, None, self.columns]), batch.soft_slot - self.slot)


def build(config: ModelConfig, shape: ModelShape, linear_logit: bool) -> NotesEncoder:
    columns = registry.columns_of(NOTES, shape.panel)
    return NotesEncoder(columns, shape.first_soft_token(NOTES), config.width)


@pytest.fixture(autouse=True)
def notes() -> Iterator[None]:
    registry.register(SPEC)
    register_encoder(EncoderFactory(NOTES, build, lambda config: 1))
    yield
    unregister_encoder(NOTES)
    registry.unregister(NOTES)


def rows(first: int, *, notes: bool, scores: bool) -> list[Row]:
    """Twelve people with three visits each."""
    rng, found = np.random.default_rng(first), []
    for subject in range(first, first + 12):
        codes = ("DX//A", "DX//B") if subject % 2 else ("DX//B", "DX//C")
        found += [(subject, 24.0 * 40 * visit, code, None) for visit in range(3) for code in codes]
        if notes:
            found += [(subject, None, f"NOTES//{i}", float(rng.normal())) for i in range(2)]
        if scores:
            found += [(subject, None, "PRS//PGS1", float(rng.normal()))]
    return found


@pytest.fixture
def stores(tmp_path: Path) -> tuple[SiteStore, SiteStore]:
    splits = dict.fromkeys((1, 2, 101, 102), "tuning")
    return (
        write(tmp_path / "a", rows(1, notes=True, scores=True), splits=splits),
        write(tmp_path / "b", rows(101, notes=False, scores=True), splits=splits),
    )


def settings() -> RunConfig:
    return compose(
        [
            "model=tiny",
            "rounds=1",
            "tokens.k_min=1",
            "train.max_steps=2",
            "train.drop_genomics=0",
        ]
    )


def test_a_store_says_that_it_holds_the_new_modality(stores: tuple[SiteStore, SiteStore]) -> None:
    with_notes, without = stores
    assert with_notes.modalities == {"ehr", "genomics", NOTES}
    assert without.modalities == {"ehr", "genomics"}
    assert with_notes.summary()["note_values"] == 24
    hidden = SiteStore.open(with_notes.path, modalities=["ehr", "genomics"])
    assert hidden.summary()["note_values"] == 0
    assert SitePolicy().modalities == ("ehr", "genomics", NOTES, "wearable")


def test_one_round_trains_its_encoder_where_a_site_has_it(
    stores: tuple[SiteStore, SiteStore], tmp_path: Path
) -> None:
    nodes = [NodeSpec(store.name, ((store.path, None),)) for store in stores]
    result = run_federation(settings(), nodes, tmp_path / "run")
    row = result.history[0]
    assert row["groups"][NOTES]["sites"] == 1
    assert row["groups"]["genomics"]["sites"] == 2
    weight = "encoders.notes.inwards.weight"
    assert result.parameters[weight].shape == (64, 2)
    assert not np.array_equal(result.parameters[weight], initial_parameters(result.study)[weight])


def test_a_modality_that_nobody_knows_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"HF-102.*'genomics' or 'notes'") as refusal:
        compose(["data.cycle_modalities=[[ehr,imaging]]"])
    assert "imaging" in str(refusal.value)
