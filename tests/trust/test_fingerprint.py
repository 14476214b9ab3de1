"""Ten words for a fingerprint: what they are, what is taken for them, and what is not."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest

from healthfm_core.errors import TrustError
from healthfm_core.trust import fingerprint, word_list

ONE = hashlib.sha256(b"one").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
WORDS = fingerprint.in_words(ONE)


def refused(told: str) -> TrustError:
    """Return the refusal of what somebody typed."""
    with pytest.raises(TrustError) as caught:
        fingerprint.refuse_other(ONE, told, where="kit, root", do="ask")
    assert caught.value.code == "HF-809"
    return caught.value


def test_the_list_is_the_standard_one() -> None:
    data = (files("healthfm_core.trust") / "bip39_english.txt").read_bytes()
    known = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    assert hashlib.sha256(data).hexdigest() == known
    assert len(set(word_list.words())) == 2**word_list.BITS
    assert len({word[:4] for word in word_list.words()}) == 2**word_list.BITS


def test_the_words_are_the_first_bits_in_their_order() -> None:
    """BIP-39's own first test vector: zeros are `abandon`; and bits set one by one."""
    assert fingerprint.in_words("00" * 32) == " ".join(["abandon"] * 10)
    assert fingerprint.in_words("FF" * 32) == " ".join(["zoo"] * 10)
    assert fingerprint.in_words(f"{1 << 245:064x}").split()[0] == word_list.words()[1]
    assert fingerprint.in_words(f"{1 << 146:064x}").split()[9] == word_list.words()[1]
    assert fingerprint.in_words(f"{1 << 145:064x}") == " ".join(["abandon"] * 10)


@pytest.mark.parametrize(
    "told",
    [WORDS, WORDS.upper(), WORDS.replace(" ", "-"), WORDS.replace(" ", ",\n "), f" {WORDS}. "],
)
def test_words_are_taken_as_people_type_them(told: str) -> None:
    assert fingerprint.is_one(told)
    assert fingerprint.same(ONE, told)
    assert fingerprint.same(told, ONE.upper())
    assert not fingerprint.same(OTHER, told)
    fingerprint.refuse_other(ONE, told, where="kit, root", do="ask")


@pytest.mark.parametrize("place", range(10))
def test_one_other_word_is_another_fingerprint(place: int) -> None:
    told = WORDS.split()
    told[place] = "zoo" if told[place] != "zoo" else "abandon"
    error = refused(" ".join(told))
    assert WORDS in error.seen
    assert error.do == "ask"


def test_a_mistyped_word_is_named_with_the_nearest() -> None:
    error = refused(WORDS.replace(WORDS.split()[3], "abandom"))
    assert "no word of the list is 'abandom'; the nearest is 'abandon'" in str(error)


def test_words_in_another_order_or_number_are_refused() -> None:
    told = WORDS.split()
    assert "the words" in refused(" ".join([told[1], told[0], *told[2:]])).seen
    assert refused(" ".join(told[:9])).seen.startswith("9 words")
    assert refused(" ".join([*told, "zoo"])).seen.startswith("11 words")


@pytest.mark.parametrize("told", ["", "AB:CD", ONE[:-1], ONE + "0", "hello"])
def test_what_is_neither_is_refused(told: str) -> None:
    assert "not ten words or 64 hexadecimal digits" in refused(told).seen
    assert not fingerprint.same(told, told)


def test_digits_are_compared_whole() -> None:
    last = ONE[:-1] + ("0" if ONE[-1] != "0" else "1")
    assert fingerprint.in_words(last) == WORDS
    assert not fingerprint.same(ONE, last)
    assert ONE in refused(last).seen
