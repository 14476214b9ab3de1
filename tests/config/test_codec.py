"""What goes with a codec and what does not."""

from __future__ import annotations

import pytest

from healthfm_core.config.codec import CodecConfig
from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError

INT8 = "federation.codec.uplink=int8"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["federation=secure", INT8], r"secure\.ring_bits=16"),
        (["federation=secure_16", "federation.aggregation.secure.epsilon=8"], "no room for noise"),
        (["privacy=distributed", "federation.aggregation.secure.ring_bits=16"], "has no room"),
        (["federation=scaffold", INT8], "control variates"),
        (["federation.codec.top_k=.1"], "federation.codec.uplink, for example int8"),
        ([INT8, "federation.codec.top_k=1"], "less than 1"),
        ([INT8, "federation.codec.top_k=0"], "greater than 0"),
        (["federation.codec.uplink=int4"], "fp16"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(overrides)


@pytest.mark.parametrize("more", ["privacy=dp", "federation.codec.downlink=int8"])
def test_sums_in_few_bits_go_with_changes_of_the_model_and_noise_of_each_site(more: str) -> None:
    secure = compose(["federation=secure_16", more]).federation.aggregation.secure
    assert (secure.ring_bits, secure.fine_bits) == (16, 32)


@pytest.mark.parametrize("more", ["privacy=dp", "federation=krum", "federation=adam"])
def test_what_does_is_not(more: str) -> None:
    assert compose([more, INT8]).federation.codec.uplink == "int8"


def test_by_default_updates_travel_as_they_are() -> None:
    assert compose([]).federation.codec == CodecConfig()
    assert CodecConfig().uplink_bytes == 4


def test_a_tenth_of_the_numbers_takes_a_bit_of_each_besides() -> None:
    assert CodecConfig(uplink="fp16", top_k=0.1).uplink_bytes == pytest.approx(0.2 + 0.125)
