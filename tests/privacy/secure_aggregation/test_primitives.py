"""What the protocol rests on: masks, shares, keys, the graph, the ring."""

from __future__ import annotations

import itertools
import os
import random

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sympy import isprime

from healthfm_core.errors import PrivacyError
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.privacy.secure_aggregation import keys, shamir
from healthfm_core.privacy.secure_aggregation.graph import (
    choose_degree,
    holders_needed,
    neighbours,
)
from healthfm_core.privacy.secure_aggregation.masks import add_mask
from tests.privacy.secure_aggregation.sessions import Session, terms

KEY = bytes(range(32))


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("size", [0, 1, 7, 2**18, 2**18 + 3, 600_001])
def test_a_mask_is_the_keystream_and_taking_it_away_leaves_nothing(dtype, size: int) -> None:
    values = np.zeros(size, dtype)
    add_mask(values, KEY, stream=1)
    if size > 10:
        assert stats.kstest(values / np.iinfo(dtype).max, "uniform").pvalue > 1e-6
        whole = np.zeros(size, dtype)
        add_mask(whole, KEY, stream=0)
        assert not (values == whole).all()
    add_mask(values, KEY, stream=1, sign=-1)
    assert not values.any()


def test_a_mask_is_aes_ctr_from_its_published_test_vector() -> None:
    """NIST SP 800-38A, F.5.5, the first counter block set by encrypting zeros under our own."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    values = np.zeros(8, np.uint32)
    add_mask(values, KEY, stream=5)
    block = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()
    wanted = block.update((5).to_bytes(8, "big") + bytes(8))
    wanted += block.update((5).to_bytes(8, "big") + (1).to_bytes(8, "big"))
    assert values.tobytes() == wanted


def test_a_mask_needs_an_array_of_the_ring() -> None:
    for bad in (np.zeros(4, np.uint8), np.zeros(8, np.uint32)[::2]):
        with pytest.raises(ValueError, match="contiguous"):
            add_mask(bad, KEY, 0)


def test_the_field_is_a_prime_just_over_the_secrets() -> None:
    assert isprime(shamir.PRIME)
    assert shamir.PRIME > 2**256


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.integers(0, 8))
@settings(max_examples=40)
def test_any_threshold_of_the_shares_gives_the_secret(secret, threshold, more) -> None:
    holders = random.Random(more).sample(range(1, 200), threshold + more)
    shares = shamir.split(secret, holders, threshold)
    chosen = random.Random(threshold).sample(holders, threshold)
    assert shamir.combine({place: shares[place] for place in chosen}, threshold) == secret
    with pytest.raises(ValueError, match="fewer"):
        shamir.combine({place: shares[place] for place in chosen[1:]}, threshold)


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    """With t - 1 shares each candidate secret has exactly one polynomial through them."""
    shares = shamir.split(KEY, [1, 2, 3], 3)
    for candidate in (0, 1, int.from_bytes(KEY, "big") ^ 1):
        third = shares[2] * 3 - shares[1] * 3 + candidate  # f(3) of the parabola through both
        again = shamir.combine({1: shares[1], 2: shares[2], 3: third % shamir.PRIME}, 3)
        assert int.from_bytes(again, "big") == candidate


@pytest.mark.parametrize(
    ("secret", "holders", "threshold"),
    [(b"short", [1, 2], 2), (KEY, [1, 2], 3), (KEY, [1, 1], 1), (KEY, [0, 1], 1), (KEY, [1], 0)],
)
def test_what_cannot_be_shared_is_refused(secret, holders, threshold) -> None:
    with pytest.raises(ValueError, match="sharing"):
        shamir.split(secret, holders, threshold)


def test_two_sites_agree_and_purpose_and_session_part_their_secrets() -> None:
    a, b = keys.new_private(), keys.new_private()
    one = keys.agree(a, keys.public_of(b), purpose="mask", session=b"s")
    assert one == keys.agree(b, keys.public_of(a), purpose="mask", session=b"s")
    assert one != keys.agree(b, keys.public_of(a), purpose="message", session=b"s")
    assert one != keys.agree(b, keys.public_of(a), purpose="mask", session=b"t")
    with pytest.raises(ValueError, match="shared key"):
        keys.agree(a, bytes(32), purpose="mask", session=b"s")


def test_messages_open_with_their_key_and_subject_only() -> None:
    message = keys.seal(KEY, b"text", b"about")
    assert keys.open_seal(KEY, message, b"about") == b"text"
    assert keys.open_seal(KEY, message, b"another") is None
    assert keys.open_seal(bytes(32), message, b"about") is None
    assert keys.open_seal(KEY, b"", b"about") is None


def test_no_secret_comes_from_a_generator_that_a_seed_can_set(monkeypatch) -> None:
    """The same seeds everywhere, the operating system's entropy taken away bit by bit.

    Flower's masks come from a 28-bit seed of NumPy's. Here two sessions under equal seeds share
    no secret, and each of the site's secrets is one that the operating system was asked for.
    """
    secrets_of = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  (the very thing that must not matter)
        session = Session(["a", "b", "c"], terms(), {"x": (1, "uint32")})
        session.keys()
        site = session.sites["a"]
        secrets_of.append({site.sealing, site.masking, site.own})
    assert secrets_of[0] & secrets_of[1] == set()
    assert len(secrets_of[0]) == 3
    asked = []
    monkeypatch.setattr(keys.os, "urandom", lambda n: asked.append(n) or os.getrandom(n))
    assert len(keys.new_secret()) == 32
    assert asked == [32]


def test_private_keys_do_not_repeat_and_fill_their_range() -> None:
    """A brute force over 28 bits needs keys that differ in few bits; these differ in all."""
    drawn = np.frombuffer(b"".join(keys.new_secret() for _ in range(2000)), np.uint8)
    bits = np.unpackbits(drawn.reshape(2000, 32), axis=1)
    z = (bits.mean(0) - 0.5) / np.sqrt(0.25 / 2000)
    assert np.abs(z).max() < 6
    assert len({row.tobytes() for row in bits}) == 2000


@pytest.mark.parametrize(("n", "degree"), [(3, 2), (10, 4), (10, 5), (11, 9), (50, 12)])
def test_the_graph_is_symmetric_connected_and_of_the_degree(n: int, degree: int) -> None:
    names = [str(i) for i in range(n)]
    graph = neighbours(names, degree, b"seed")
    wanted = min(n - 1, degree + degree % 2)
    assert {len(near) for near in graph.values()} == {wanted}
    assert all(name in graph[other] for name in names for other in graph[name])
    edges = [(name, other) for name in names for other in graph[name]]
    assert networkx.node_connectivity(networkx.Graph(edges)) == wanted
    assert neighbours(names[::-1], degree, b"seed") == graph
    if wanted < n - 1:
        assert neighbours(names, degree, b"another") != graph


def test_over_half_of_the_holders_and_at_least_two_are_needed() -> None:
    assert [holders_needed(n, 2 / 3) for n in (2, 3, 4, 6, 9, 100)] == [2, 2, 3, 4, 6, 67]
    assert [holders_needed(n, 0.501) for n in (2, 3, 4, 6)] == [2, 2, 3, 4]
    for n, share in itertools.product(range(2, 60), (0.51, 0.67, 0.9, 1.0)):
        assert n / 2 < holders_needed(n, share) <= n


def test_the_chosen_degree_keeps_its_promises_in_simulated_rounds() -> None:
    """With weak promises (2^-7) failures would show in 800 rounds; there are not more."""
    n, share, bad, gone = 60, 0.6, 6, 6
    degree = choose_degree(
        n,
        share,
        colluding_fraction=0.1,
        dropout_fraction=0.1,
        security_bits=7,
        failure_bits=7,
    )
    assert degree < n - 1
    needed = holders_needed(degree + 1, share)
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(n)]
    failures = 0
    for _ in range(800):
        graph = neighbours(names, degree, rng.bytes(32))
        out = set(map(str, rng.permutation(n)[: bad + gone]))
        left = set(map(str, rng.permutation(n)[:gone]))
        rest = networkx.Graph({a: set(graph[a]) - out for a in names if a not in out})
        short = any(len(set(graph[a]) - left) + 1 < needed for a in names)
        failures += short or not networkx.is_connected(rest)
    assert failures <= 800 * 3 * 2**-7


def test_few_sites_all_mask_with_all_and_many_do_not() -> None:
    def degree(n: int) -> int:
        return choose_degree(n, 0.6, colluding_fraction=0.05, dropout_fraction=0.05)

    assert [degree(n) for n in (3, 5, 10, 16)] == [2, 4, 9, 15]
    assert degree(1000) < 100


@given(
    bits=st.sampled_from([16, 32, 64]),
    clip=st.floats(1e-3, 1e3),
    weights=st.lists(st.integers(0, 5000), min_size=1, max_size=20),
    seed=st.integers(0, 2**32),
    by_chance=st.booleans(),
)
@settings(max_examples=80)
def test_sums_in_the_ring_are_right_and_never_wrap(bits, clip, weights, seed, by_chance) -> None:
    ring = secure.FixedPoint(bits, clip, max(1, sum(weights)), len(weights))
    rng = np.random.default_rng(seed)
    values = rng.uniform(-clip, clip, (len(weights), 9)).astype(np.float32)
    values = np.clip(values, -np.float32(clip), np.float32(clip))
    values[np.abs(values) > clip] = 0
    values[:, 0], values[:, 1] = clip * 0.999999, -clip * 0.999999
    total = np.zeros(9, ring.dtype)
    for row, weight in zip(values, weights, strict=True):
        encoded = np.empty(9, ring.dtype)
        ring.encode(row, weight, encoded, rng if by_chance else None)
        total += encoded
    exact = (np.array(weights, np.float64)[:, None] * values.astype(np.float64)).sum(0)
    slack = 1e-9 * np.abs(exact).max() if bits == 64 else 0
    off = ring.resolution * (1 + by_chance)
    assert np.abs(ring.decode(total) - exact).max() <= off + slack


def test_rounded_by_chance_small_parts_are_right_on_average() -> None:
    ring = secure.FixedPoint(16, 1.0, 1000, 1000)
    part, rng = np.full(1, 0.3 / ring.scale), np.random.default_rng(0)
    total, nearest, encoded = (np.zeros(1, np.uint16) for _ in range(3))
    for _ in range(1000):
        ring.encode(part, 1, encoded, rng)
        total += encoded
        ring.encode(part, 1, encoded)
        nearest += encoded
    assert ring.decode(nearest)[0] == 0, "to the nearest all of it is lost"
    assert ring.decode(total)[0] * ring.scale == pytest.approx(300, abs=60)


def test_all_sites_at_their_clip_fill_the_ring_and_no_more() -> None:
    ring = secure.FixedPoint(32, 1.0, 600, 6)
    for sign in (1.0, -1.0):
        total = np.zeros(1, np.uint32)
        for _ in range(6):
            encoded = np.empty(1, np.uint32)
            ring.encode(np.array([sign], np.float32), 100, encoded)
            total += encoded
        assert ring.decode(total)[0] == sign * 600
    assert 2 * ring.scale * 600 + 6 > 2**31 - 1  # a larger power of two would not be safe


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0001, -2.0])
def test_what_does_not_fit_the_clip_is_refused(value: float) -> None:
    ring = secure.FixedPoint(32, 1.0, 10, 2)
    with pytest.raises(PrivacyError, match=r"HF-613.*clip"):
        ring.encode(np.array([0.0, value], np.float32), 1, np.empty(2, np.uint32))
    for weight in (-1, 11):
        with pytest.raises(PrivacyError, match=r"HF-613.*weight"):
            ring.encode(np.array([0.0], np.float32), weight, np.empty(1, np.uint32))
