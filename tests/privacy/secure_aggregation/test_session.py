"""The protocol from end to end: sums, sites that leave, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healthfm_core.errors import PrivacyError
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_core.privacy.secure_aggregation import keys
from healthfm_core.privacy.secure_aggregation.graph import holders_needed
from tests.privacy.secure_aggregation.sessions import Session, random_values, run, terms, total

SIZES = {"a": (5, "uint32"), "b": (6, "uint64")}


def names(n: int) -> list[str]:
    return [f"site-{i:02d}" for i in range(n)]


def same(left, right) -> bool:
    return left.keys() == right.keys() and all((left[k] == right[k]).all() for k in left)


@given(data=st.data(), n=st.integers(3, 9), seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_every_pattern_of_dropouts_down_to_the_threshold_gives_the_survivors_sum(data, n, seed):
    """All tied to all: whoever leaves and whenever, as long as enough are there at the end."""
    sites = names(n)
    left = data.draw(
        st.lists(st.tuples(st.sampled_from(sites), st.integers(1, 3)), unique_by=lambda x: x[0])
    )
    left = left[: n - holders_needed(n, 2 / 3)]
    gone = [{name for name, when in left if when <= exchange} for exchange in range(4)]
    values = random_values(sites, np.random.default_rng(seed))
    opened = run(values, terms(), gone)
    assert same(opened, total(values, set(sites) - gone[2]))


def test_one_dropout_too_many_opens_nothing():
    values = random_values(names(6), np.random.default_rng(0))
    for exchange in (1, 2, 3):
        gone = [names(3) if i >= exchange else () for i in range(4)]
        with pytest.raises(PrivacyError, match="HF-611"):
            run(values, terms(), gone)
        fewer = [names(2) if i >= exchange else () for i in range(4)]
        run(values, terms(), fewer)


@pytest.mark.parametrize(
    ("n", "degree"), [(3, 0), (16, 6), (40, 0), pytest.param(100, 0, marks=pytest.mark.slow)]
)
def test_three_to_a_hundred_sites_of_which_a_tenth_leaves_exchange_by_exchange(n, degree):
    sites, some = names(n), -(-n // 40)
    gone = [sites[: some * i] for i in range(4)] if n > 16 else [(), (), sites[:1], sites[:1]]
    values = random_values(sites, np.random.default_rng(n), size=3)
    opened = run(values, terms(degree=degree), gone)
    assert same(opened, total(values, set(sites) - set(gone[2])))


def test_sites_that_never_sent_keys_have_no_part():
    values = random_values(names(5), np.random.default_rng(1))
    gone = ["site-04"]
    opened = run(values, terms(), [gone, gone, gone, gone])
    assert same(opened, total(values, names(4)))


def started(n: int = 5, **change) -> Session:
    session = Session(names(n), terms(**change), SIZES)
    session.keys()
    return session


def test_fewer_than_the_least_number_of_sites_are_never_begun():
    with pytest.raises(PrivacyError, match=r"HF-611.*2 sites are left.*3 at least"):
        started(2, min_sites=3)


@pytest.mark.parametrize("field", ["sealing_key", "mask_key", "signature", "site"])
def test_a_tampered_key_is_refused_by_server_and_sites(field: str):
    session = started()
    adverts = dict(session.server.book.adverts)
    advert = adverts["site-01"]
    other = {"site": "site-09", "signature": bytes(64)}.get(field, keys.public_of(b"k" * 32))
    bad = replace(advert, **{field: other})
    fresh = secure.ServerSession(session.terms)
    with pytest.raises(PrivacyError, match="HF-610"):
        fresh.take_advert("site-01", bad)
    del adverts["site-01"]
    adverts[bad.site] = bad
    with pytest.raises(PrivacyError, match="HF-610"):
        secure.share(session.sites["site-00"], secure.KeyBook(session.terms, adverts), {})


def test_keys_signed_by_another_than_the_known_key_are_refused():
    session = started()
    book, site = session.server.book, session.sites["site-00"]
    known = {name: signer.public for name, signer in session.signers.items()}
    secure.share(site, book, known)
    with pytest.raises(PrivacyError, match=r"HF-610.*site-01.*another key than the one known"):
        secure.share(site, book, known | {"site-01": known["site-02"]})


def test_one_site_under_two_names_is_refused():
    signer = secure.SigningKey.generate()
    signers = {name: secure.SigningKey.generate() for name in names(4)}
    session = Session([], terms(), SIZES, signers | {"site-02": signer, "site-03": signer})
    with pytest.raises(PrivacyError, match=r"HF-610.*two names"):
        secure.share(session.sites.get("site-00") or _first(session), session.server.book, {})


def _first(session: Session) -> secure.SiteSession:
    session.keys()
    return session.sites["site-00"]


def test_keys_of_an_earlier_session_are_refused():
    """The coordinator may know the private mask key behind an old advert."""
    session = started()
    later = Session(names(5), replace(session.terms, nonce="01"), SIZES, session.signers)
    later.keys()
    adverts = dict(later.server.book.adverts)
    adverts["site-01"] = session.server.book.adverts["site-01"]
    with pytest.raises(PrivacyError, match="HF-610"):
        secure.share(later.sites["site-00"], secure.KeyBook(later.terms, adverts), {})


@pytest.mark.parametrize("wrong", ["replayed", "another's", "changed", "missing"])
def test_a_share_that_is_not_this_message_is_refused(wrong: str):
    before, session = started(), started(nonce="02")
    session.signers = before.signers
    session.server = secure.ServerSession(session.terms)
    session.server.sizes(SIZES)
    session.keys()
    before.shares()
    session.shares()
    box = session.server.mailboxes()["site-00"]
    messages = dict(box.messages)
    match wrong:
        case "replayed":
            messages["site-01"] = before.server.mailboxes()["site-00"].messages["site-01"]
        case "another's":
            messages["site-01"] = session.server.mailboxes()["site-02"].messages["site-01"]
        case "changed":
            messages["site-01"] = bytes([messages["site-01"][0] ^ 1]) + messages["site-01"][1:]
        case "missing":
            del messages["site-01"]
    arrays = random_values(["x"], np.random.default_rng(0))["x"]
    before_masking = {name: array.copy() for name, array in arrays.items()}
    with pytest.raises(PrivacyError, match=r"HF-610.*message of site site-01"):
        secure.mask(session.sites["site-00"], replace(box, messages=messages), arrays)
    assert same(arrays, before_masking)


def masked(n: int = 5) -> Session:
    session = started(n)
    session.shares()
    session.inputs(random_values(names(n), np.random.default_rng(3)), gone=["site-04"])
    return session


def test_a_request_for_both_kinds_of_share_is_refused():
    session = masked()
    survivors, site = names(4), session.sites["site-00"]
    for request in (
        secure.UnmaskRequest(tuple(survivors), ("site-04", "site-03")),
        secure.UnmaskRequest(tuple(survivors), ()),
        secure.UnmaskRequest(tuple(survivors), ("site-04", "site-09")),
        secure.UnmaskRequest(tuple(survivors[1:]), ("site-04", "site-00")),
    ):
        with pytest.raises(PrivacyError, match="HF-612"):
            secure.unmask(site, request)
    with pytest.raises(PrivacyError, match="HF-611"):
        secure.unmask(site, secure.UnmaskRequest(("site-00",), tuple(names(5)[1:])))


def test_no_site_holds_both_shares_of_anybody_in_one_reply():
    session = masked()
    reply = secure.unmask(session.sites["site-00"], session.server.request())
    assert reply.own.keys() & reply.pairwise.keys() == set()
    assert set(reply.pairwise) == {"site-04"}


def test_steps_are_taken_once_and_in_order():
    session = started()
    book, site = session.server.book, session.sites["site-00"]
    arrays = random_values(["x"], np.random.default_rng(0))["x"]
    with pytest.raises(PrivacyError, match="HF-612"):
        secure.unmask(site, secure.UnmaskRequest((), ()))
    with pytest.raises(PrivacyError, match="HF-612"):
        secure.mask(site, secure.Mailbox((), {}), arrays)
    session.shares()
    with pytest.raises(PrivacyError, match="HF-612"):
        secure.share(session.sites["site-00"], book, {})
    box = session.server.mailboxes()["site-00"]
    after = secure.mask(session.sites["site-00"], box, arrays)
    with pytest.raises(PrivacyError, match="HF-612"):
        secure.mask(after, box, arrays)


def test_an_input_after_the_request_is_not_taken():
    session = masked()
    session.server.request()
    late = random_values(["x"], np.random.default_rng(0))["x"]
    with pytest.raises(PrivacyError, match="HF-610"):
        session.server.fold("site-04", late)


@pytest.mark.parametrize("change", ["name", "type", "length"])
def test_an_input_of_another_form_is_not_taken(change: str):
    session = started()
    session.shares()
    session.server.mailboxes()
    arrays = random_values(["x"], np.random.default_rng(0))["x"]
    match change:
        case "name":
            arrays["c"] = arrays.pop("b")
        case "type":
            arrays["a"] = arrays["a"].astype(np.uint64)
        case "length":
            arrays["a"] = arrays["a"][:4]
    with pytest.raises(PrivacyError, match="HF-610"):
        session.server.fold("site-00", arrays)


def test_a_wrong_share_is_found_out_and_the_sum_opened_without_it():
    values = random_values(names(5), np.random.default_rng(5))
    session = started()
    session.shares()
    session.inputs(values)
    request = session.server.request()
    for name in request.survivors:
        reply = secure.unmask(session.sites[name], request)
        if name == "site-02":
            reply = replace(reply, own={k: v + 1 for k, v in reply.own.items()})
        session.server.take_reply(name, reply)
    assert same(session.server.open(), total(values, names(5)))


@pytest.mark.parametrize(
    "change",
    [{"threshold": 0.5}, {"threshold": 1.1}, {"min_sites": 1}, {"degree": -1}, {"nonce": 3}],
)
def test_terms_that_would_protect_nobody_are_refused(change):
    given = terms()
    raw = json.loads(given.to_json()) | change
    with pytest.raises(PrivacyError, match="HF-610"):
        secure.Terms.from_json(json.dumps(raw))
    assert secure.Terms.from_json(given.to_json()) == given


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '["a"]', '["a",{},"xy"]', "[1,2,3]"])
def test_letters_that_cannot_be_read_are_refused(text: str):
    for message in (
        secure.Terms,
        secure.KeyAdvert,
        secure.KeyBook,
        secure.SealedShares,
        secure.Mailbox,
        secure.UnmaskRequest,
        secure.UnmaskReply,
    ):
        with pytest.raises(PrivacyError, match="HF-610"):
            message.from_json(text)
