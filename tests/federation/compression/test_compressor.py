"""What travels of an update: what is left out is kept, and nothing that arrives is believed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthfm_core.federation import wire
from healthfm_core.federation.compression.compressor import Compressor
from healthfm_core.federation.parameter_groups import group_names

SHAPES = {
    "backbone.w": (40, 30),
    "backbone.b": (),
    "encoders.ehr.w": (300,),
    "heads.next_visit.w": (3, 1),
}
GROUPS = group_names(SHAPES)
CODECS = [Compressor(name, share) for name in ("fp16", "bf16", "int8") for share in (None, 0.1)]


def update(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        name: np.asarray(generator.normal(size=shape) * 1e-3, np.float32)
        for name, shape in SHAPES.items()
    }


def there_and_back(compressor: Compressor, given_: dict, residual: dict, seed: int = 0):
    """Encode, put on the wire, decode."""
    encoded = compressor.encode(GROUPS, given_, residual, seed)
    received = wire.unbundle(wire.bundle(encoded.arrays))
    return compressor.decode(GROUPS, SHAPES, received), encoded.residual


@pytest.mark.parametrize("compressor", CODECS)
@given(rounds=st.integers(1, 6), seed=st.integers(0, 5))
def test_all_that_was_sent_and_the_last_residual_are_all_updates(
    compressor: Compressor, rounds: int, seed: int
) -> None:
    residual: dict[str, np.ndarray] = {}
    sent = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    whole = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for number in range(rounds):
        change = update(10 * seed + number)
        decoded, residual = there_and_back(compressor, change, residual, number)
        assert dict(decoded).keys() == SHAPES.keys()
        for name in SHAPES:
            assert decoded[name].shape == SHAPES[name]
            assert decoded[name].dtype == np.float32
            sent[name] += decoded[name]
            whole[name] += change[name]
    for name in SHAPES:
        np.testing.assert_allclose(sent[name] + residual[name], whole[name], atol=1e-8)


def test_without_what_was_left_out_before_nothing_adds_up() -> None:
    compressor = Compressor("int8", 0.1)
    change = update()
    sent = [there_and_back(compressor, change, {}, number)[0]["backbone.w"] for number in range(20)]
    assert np.abs(np.mean(sent, axis=0) - change["backbone.w"]).max() > 5e-4
    residual: dict[str, np.ndarray] = {}
    total = np.zeros(SHAPES["backbone.w"])
    for number in range(20):
        decoded, residual = there_and_back(compressor, change, residual, number)
        total += decoded["backbone.w"]
    assert np.abs(total / 20 - change["backbone.w"]).max() < 5e-4


@pytest.mark.parametrize("compressor", CODECS)
def test_a_groups_bytes_do_not_depend_on_the_other_groups(compressor: Compressor) -> None:
    everything = compressor.encode(GROUPS, update(), {}, 3).arrays
    alone = compressor.encode({"ehr": GROUPS["ehr"]}, update(), {}, 3).arrays
    assert wire.bundle(alone) == wire.bundle({n: everything[n] for n in alone})
    assert {name.partition("/")[0] for name in alone} == {"ehr"}


def test_the_largest_numbers_of_each_parameter_are_sent_and_the_others_kept() -> None:
    decoded, residual = there_and_back(Compressor("fp16", 0.1), update(), {})
    for name, value in update().items():
        sent = decoded[name] != 0
        assert np.count_nonzero(sent) == max(1, round(0.1 * value.size))
        if value.size > 1:
            assert np.abs(value[sent]).min() >= np.abs(value[~sent]).max()
            assert (residual[name][~sent] == value[~sent]).all()


def test_int8_takes_less_than_a_quarter_and_a_tenth_of_it_far_less() -> None:
    big = {"backbone.w": np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)}
    whole = len(wire.bundle(big))

    def share(compressor: Compressor) -> float:
        arrays = compressor.encode({"backbone": ("backbone.w",)}, big, {}, 0).arrays
        return len(wire.bundle(arrays)) / whole

    assert share(Compressor("int8")) < 0.25
    assert share(Compressor("int8", 0.1)) < 0.06
    assert share(Compressor("fp16")) < 0.5
    assert share(Compressor("bf16")) < 0.5


def test_an_array_is_compressed_where_that_is_shorter_alone() -> None:
    few = {"heads.next_visit.w": np.ones((3, 1), np.float32)}
    sent = Compressor("int8").encode({"head/next_visit": tuple(few)}, few, {}, 0).arrays
    assert set(sent) == {"head/next_visit/int8", "head/next_visit/scales"}
    zeros = {"backbone.w": np.zeros((40, 30), np.float32)}
    sent = Compressor("int8").encode({"backbone": ("backbone.w",)}, zeros, {}, 0).arrays
    assert "backbone/int8" not in sent
    assert sent["backbone/int8.zst"].size < 40


Change = Callable[[dict[str, np.ndarray]], None]


def put(name: str, value: np.ndarray) -> Change:
    def change(arrays: dict[str, np.ndarray]) -> None:
        plain = name.removesuffix(".zst")
        assert arrays.pop(plain, None) is not None or arrays.pop(plain + ".zst", None) is not None
        arrays[name] = value

    return change


def remove(name: str) -> Change:
    def change(arrays: dict[str, np.ndarray]) -> None:
        assert arrays.pop(name, None) is not None or arrays.pop(name + ".zst", None) is not None

    return change


def add(arrays: dict[str, np.ndarray]) -> None:
    arrays["wearable/int8"] = np.zeros(3, np.int8)


def scale(first: float) -> np.ndarray:
    """The scales of the group: of one number, and of five blocks."""
    return np.array([first, *[0.5] * 5], np.float32)


BOMB = np.frombuffer(pa.compress(bytes(10**7), codec="zstd", asbytes=True), np.uint8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (remove("backbone/int8"), "it has no backbone/int8"),
        (remove("backbone/scales"), "it has no backbone/scales"),
        (add, "1 arrays that int8 does not, wearable/int8"),
        (put("backbone/int8", np.zeros(1200, np.int8)), "not 1201 numbers of type"),
        (put("backbone/int8", np.zeros(1201, np.uint8)), "not 1201 numbers of type"),
        (put("backbone/int8", np.zeros((1, 1201), np.int8)), "not 1201 numbers of type"),
        (put("backbone/scales", np.zeros(5, np.float32)), "not 6 numbers of type"),
        (put("backbone/scales", scale(np.nan)), "no positive number"),
        (put("backbone/scales", scale(np.inf)), "no positive number"),
        (put("backbone/scales", scale(-1.0)), "no positive number"),
        (put("backbone/int8.zst", np.zeros(9, np.uint8)), "is not 1201 bytes of zstd"),
        (put("backbone/int8.zst", BOMB), "is not 1201 bytes of zstd"),
        (put("backbone/int8.zst", np.zeros(9, np.int8)), "is not a row of bytes"),
    ],
)
def test_what_is_not_exactly_the_codecs_is_refused(change: Change, reason: str) -> None:
    compressor = Compressor("int8")
    arrays = compressor.encode(GROUPS, update(), {}, 0).arrays
    change(arrays)
    with pytest.raises(ValueError, match=reason):
        compressor.decode(GROUPS, SHAPES, arrays)


@pytest.mark.parametrize("sender", CODECS)
@pytest.mark.parametrize("reader", CODECS)
def test_a_codec_reads_its_own_alone(sender: Compressor, reader: Compressor) -> None:
    arrays = sender.encode(GROUPS, update(), {}, 0).arrays
    if sender == reader:
        assert len(reader.decode(GROUPS, SHAPES, arrays)) == len(SHAPES)
        return
    with pytest.raises(ValueError, match=r"it has no|arrays that|numbers of type|of zstd"):
        reader.decode(GROUPS, SHAPES, arrays)


def test_plain_arrays_are_no_codecs() -> None:
    with pytest.raises(ValueError, match="it has no backbone/int8"):
        Compressor("int8").decode(GROUPS, SHAPES, update())


def test_a_mask_that_chooses_more_than_came_is_refused() -> None:
    compressor = Compressor("int8", 0.1)
    arrays = compressor.encode(GROUPS, update(), {}, 0).arrays
    put("backbone/mask", np.full(151, 255, np.uint8))(arrays)
    with pytest.raises(ValueError, match="backbone/int8"):
        compressor.decode(GROUPS, SHAPES, arrays)


def test_a_scale_beyond_float32_gives_values_that_the_norm_check_finds() -> None:
    compressor = Compressor("int8")
    arrays = compressor.encode(GROUPS, update(), {}, 0).arrays
    put("backbone/scales", scale(3e38))(arrays)
    put("backbone/int8", np.full(1201, 127, np.int8))(arrays)
    assert not np.isfinite(compressor.decode(GROUPS, SHAPES, arrays)["backbone.b"]).all()


def test_two_parameters_of_a_group_are_rounded_by_chances_of_their_own() -> None:
    equal = update()["backbone.w"]
    names = ("backbone.w", "backbone.x")
    encoded = Compressor("int8").encode({"backbone": names}, dict.fromkeys(names, equal), {}, 0)
    one, other = encoded.residual.values()
    assert not np.array_equal(one, other)
