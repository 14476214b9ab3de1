"""What a codec left out at a site: which file each group goes on from, and which files stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from healthfm_client.site.residuals import SiteResiduals
from healthfm_client.site.round_files import RoundFiles
from healthfm_core.errors import RunError
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.protocol import RoundOrder, RoundResult

NAMES = ("backbone.w", "encoders.ehr.w")


def kept(folder: Path) -> RoundFiles:
    return RoundFiles(folder, "residuals of its updates", 2)


def write(folder: Path, number: int, value: float) -> None:
    kept(folder).keep(number, {name: np.full(300, value, np.float32) for name in NAMES}, range(99))


def encode(folder: Path, number: int, counted: dict[str, int], names=NAMES) -> None:
    """A round whose update is zeros: what is sent and left out is what was left out before."""
    order = RoundOrder(number, 9, ("backbone", "ehr"), False, 1, counted=counted)
    update = {name: np.zeros(300, np.float32) for name in names}
    site = SiteResiduals(kept(folder), Compressor("fp16", 0.5), order)
    site.encode(RoundResult(update, {"backbone": 1.0, "ehr": 1.0}, {}))


def test_each_group_goes_on_from_the_round_it_was_last_counted_in(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path, number, float(number))
    encode(tmp_path, 4, {"backbone": 3, "ehr": 1})
    after = kept(tmp_path).read(4)
    assert {after["backbone.w"].max(), after["encoders.ehr.w"].max()} == {3.0, 1.0}
    assert np.count_nonzero(after["backbone.w"]) == 150


def test_a_group_that_does_not_leave_this_time_keeps_its_residual(tmp_path: Path) -> None:
    write(tmp_path, 1, 5.0)
    encode(tmp_path, 2, {"backbone": 1, "ehr": 1}, names=("backbone.w",))
    assert (kept(tmp_path).read(2)["encoders.ehr.w"] == 5.0).all()


def test_a_file_that_was_lost_is_a_residual_of_zeros(tmp_path: Path) -> None:
    encode(tmp_path, 4, {"backbone": 3, "ehr": 3})
    assert not kept(tmp_path).read(4)["backbone.w"].any()


def test_a_file_that_the_order_names_stays_and_older_ones_go(tmp_path: Path) -> None:
    for number in range(1, 7):
        write(tmp_path, number, 1.0)
    encode(tmp_path, 7, {"backbone": 6, "ehr": 2})
    assert kept(tmp_path).rounds() == [2, 5, 6, 7]


def test_what_was_made_after_a_round_that_is_asked_again_goes(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path, number, 1.0)
    encode(tmp_path, 2, {"backbone": 1, "ehr": 1})
    assert kept(tmp_path).rounds() == [1, 2]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1, 1.0)
    (tmp_path / "round-0001.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match=r"HF-703.*round-0001.*residuals of its updates"):
        encode(tmp_path, 2, {"backbone": 1, "ehr": 1})
