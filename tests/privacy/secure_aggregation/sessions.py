"""A whole session in one process: honest sites, a coordinator, and sites that leave."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from healthfm_core.arrays import ArrayDict
from healthfm_core.privacy import secure_aggregation as secure


def terms(**change) -> secure.Terms:
    """Terms of round 1, two thirds of the sites, at least two."""
    given = {"study": "s", "purpose": "round", "number": 1, "nonce": "00", "threshold": 2 / 3}
    return secure.Terms(**{**given, "min_sites": 2, **change})


class Session:
    """Everybody's state; each exchange leaves out the sites that are gone by then."""

    def __init__(self, names: Collection[str], given: secure.Terms, sizes, signers=None) -> None:
        self.terms = given
        self.server = secure.ServerSession(given)
        self.server.sizes(sizes)
        self.signers = signers or {name: secure.SigningKey.generate() for name in names}
        self.sites: dict[str, secure.SiteSession] = {}
        self.seen: list[ArrayDict] = []

    def keys(self, gone: Collection[str] = ()) -> secure.KeyBook:
        for name, signer in self.signers.items():
            if name in gone:
                continue
            self.sites[name], advert = secure.begin(name, self.terms, signer)
            self.server.take_advert(name, secure.KeyAdvert.from_json(advert.to_json()))
        return self.server.book

    def shares(self, gone: Collection[str] = ()) -> None:
        text = self.server.book.to_json()
        for name in sorted(self.sites.keys() - set(gone)):
            book = secure.KeyBook.from_json(text)
            self.sites[name], sealed = secure.share(self.remembered(name), book, {})
            self.server.take_shares(name, secure.SealedShares.from_json(sealed.to_json()))

    def inputs(self, values: Mapping[str, ArrayDict], gone: Collection[str] = ()) -> None:
        for name, box in self.server.mailboxes().items():
            if name in gone:
                continue
            box = secure.Mailbox.from_json(box.to_json())
            arrays = {key: array.copy() for key, array in values[name].items()}
            self.sites[name] = secure.mask(self.remembered(name), box, arrays)
            self.seen.append({key: array.copy() for key, array in arrays.items()})
            self.server.fold(name, arrays)

    def open(self, gone: Collection[str] = ()) -> ArrayDict:
        request = self.server.request()
        for name in request.survivors:
            if name in gone:
                continue
            reply = secure.unmask(
                self.remembered(name), secure.UnmaskRequest.from_json(request.to_json())
            )
            self.server.take_reply(name, secure.UnmaskReply.from_json(reply.to_json()))
        return self.server.open()

    def remembered(self, name: str) -> secure.SiteSession:
        """The site's session as a new process would read it."""
        return secure.SiteSession.from_json(self.sites[name].to_json())


def run(values: Mapping[str, ArrayDict], given: secure.Terms, gone=((), (), (), ())) -> ArrayDict:
    """Return the opened sums; `gone` says who has left by each of the four exchanges."""
    first = next(iter(values.values()))
    sizes = {name: (array.size, array.dtype.name) for name, array in first.items()}
    session = Session(values, given, sizes)
    session.keys(gone[0])
    session.shares(gone[1])
    session.inputs(values, gone[2])
    return session.open(gone[3])


def random_values(names, rng: np.random.Generator, size: int = 5) -> dict[str, ArrayDict]:
    """Uniform arrays of both rings."""
    return {
        name: {
            "a": rng.integers(0, 2**32, size, np.uint32),
            "b": rng.integers(0, 2**64, size + 1, np.uint64),
        }
        for name in names
    }


def total(values: Mapping[str, ArrayDict], of: Collection[str]) -> ArrayDict:
    """The plain sums in the ring."""
    first = next(iter(values.values()))
    return {
        key: np.sum([values[name][key] for name in of], axis=0, dtype=array.dtype)
        for key, array in first.items()
    }
