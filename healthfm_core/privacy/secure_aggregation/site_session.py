"""A site's part in a session: four messages out, and what it refuses.

A session is a value. Each step takes what the coordinator sent and gives the session after it and
the message that goes back, so that a site whose process lives for one message keeps the session as
text in between. The text holds secrets and never leaves the site.

What a site holds to, whatever the coordinator says: keys are signed by who is known under that
name; its own key is in the book; the graph follows from the book; messages are of this session; a
sum is opened once, of no fewer sites than the terms say, and a site's own masks and its masks with
others are never both opened. With a threshold over one half two disjoint groups of holders cannot
open both behind each other's back either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, Self

from healthfm_core.errors import PrivacyError
from healthfm_core.privacy.secure_aggregation import keys, shamir
from healthfm_core.privacy.secure_aggregation.masks import Ring, add_mask
from healthfm_core.privacy.secure_aggregation.messages import (
    Mailbox,
    SealedShares,
    UnmaskReply,
    UnmaskRequest,
)
from healthfm_core.privacy.secure_aggregation.reading import canonical, reading, unfit
from healthfm_core.privacy.secure_aggregation.terms import KeyAdvert, KeyBook, Terms

Phase = Literal["keys", "shares", "input"]

MASK: Final = "mask"
_SHARE_BYTES: Final = 33


@dataclass(frozen=True)
class SiteSession:
    """What a site remembers between two messages of a session; secret.

    Attributes:
        site: Its own name.
        terms: The session's, as JSON.
        phase: The last message it sent.
        sealing: Private X25519 key of messages to it, hex.
        masking: Private X25519 key of its masks with others, hex.
        own: Secret of its own mask, hex.
        book: The book of keys as JSON, once it has come.
        kept: Its own shares of its own secrets (own, pairwise).
        held: Site → the two shares (own, pairwise) that it holds of that site's secrets.
        senders: Sites that sent messages.
    """

    site: str
    terms: str
    phase: Phase
    sealing: str
    masking: str
    own: str
    book: str = ""
    kept: tuple[int, ...] = ()
    held: Mapping[str, tuple[int, int]] | None = None
    senders: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the session as JSON, with its secrets."""
        return canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the session that `to_json` wrote."""
        return reading("the site's own session", text, cls._of)

    @classmethod
    def _of(cls, raw: dict[str, Any]) -> Self:
        held = {name: (own, pair) for name, (own, pair) in dict(raw["held"] or {}).items()}
        lists = {name: tuple(raw[name]) for name in ("kept", "senders")}
        return cls(**{**raw, **lists, "held": held})

    @property
    def _book(self) -> KeyBook:
        return KeyBook.from_json(self.book)


def begin(site: str, terms: Terms, signer: keys.Signer) -> tuple[SiteSession, KeyAdvert]:
    """Return a new session and the site's keys for it, signed."""
    sealing, masking = keys.new_private(), keys.new_private()
    bare = KeyAdvert(site, keys.public_of(sealing), keys.public_of(masking), signer.public, b"")
    advert = replace(bare, signature=signer.sign(bare.signed_text(terms.session)))
    own = keys.new_secret()
    return SiteSession(
        site, terms.to_json(), "keys", sealing.hex(), masking.hex(), own.hex()
    ), advert


def share(
    session: SiteSession, book: KeyBook, known: Mapping[str, bytes]
) -> tuple[SiteSession, SealedShares]:
    """Return the session after it and sealed shares of the site's secrets for its neighbours.

    Args:
        session: After `begin`.
        book: Everybody's keys.
        known: Site → signing key under which it is known here; one not named is believed.

    Raises:
        PrivacyError: A key is not signed, not the known one, or the site's own is another
            (HF-610); too few sites (HF-611); the session is past this step (HF-612).
    """
    _expect(session, "keys")
    _check_book(session, book, known)
    neighbours = book.graph[session.site]
    holders = [book.place[name] for name in (session.site, *neighbours)]
    own = shamir.split(bytes.fromhex(session.own), holders, book.needed(session.site))
    pair = shamir.split(bytes.fromhex(session.masking), holders, book.needed(session.site))
    messages = {
        name: _letter(session, book, name, own[book.place[name]], pair[book.place[name]])
        for name in neighbours
    }
    kept = (own[book.place[session.site]], pair[book.place[session.site]])
    sealed = SealedShares(
        session.site, messages, keys.commitment(bytes.fromhex(session.own), book.terms.session)
    )
    return replace(session, phase="shares", book=book.to_json(), kept=kept), sealed


def mask(session: SiteSession, mailbox: Mailbox, arrays: Mapping[str, Ring]) -> SiteSession:
    """Mask `arrays` in place and return the session after it.

    Args:
        session: After `share`.
        mailbox: Who takes part, and the neighbours' messages to this site.
        arrays: Name → array of the ring; the same names and sizes at every site.

    Raises:
        PrivacyError: A message is missing or of another session (HF-610); too few sites (HF-611);
            the session is past this step (HF-612).
    """
    _expect(session, "shares")
    book, senders = session._book, set(mailbox.sites)
    if not senders <= book.adverts.keys() or session.site not in senders:
        raise unfit("mailbox", "sites that sent no keys, or without this one")
    partners = [name for name in book.graph[session.site] if name in senders]
    _check_number(len(senders), book.least)
    _check_number(len(partners) + 1, book.needed(session.site))
    held = {name: _opened(session, book, name, mailbox.messages) for name in partners}
    own, masking = bytes.fromhex(session.own), bytes.fromhex(session.masking)
    secrets = {name: _pair_key(masking, book, name) for name in partners}
    for stream, array_name in enumerate(sorted(arrays)):
        add_mask(arrays[array_name], own, stream)
        for name in partners:
            sign: Literal[1, -1] = 1 if session.site < name else -1
            add_mask(arrays[array_name], secrets[name], stream, sign)
    held[session.site] = (session.kept[0], session.kept[1])
    return replace(session, phase="input", held=held, senders=tuple(sorted(senders)), own="")


def unmask(session: SiteSession, request: UnmaskRequest) -> UnmaskReply:
    """Return one share for each site that this one holds shares of; the session ends with it.

    Raises:
        PrivacyError: The request asks for both shares of a site, for other sites than those that
            took part, or the session is not at this step (HF-612); too few sites are left
            (HF-611).
    """
    _expect(session, "input")
    survivors, dropped = set(request.survivors), set(request.dropped)
    if survivors & dropped:
        raise _would_expose("a request for both kinds of share of one site")
    if survivors | dropped != set(session.senders) or session.site not in survivors:
        raise _would_expose("a request that is not about the sites that took part")
    _check_number(len(survivors), session._book.least)
    held = session.held or {}
    return UnmaskReply(
        session.site,
        {name: shares[0] for name, shares in sorted(held.items()) if name in survivors},
        {name: shares[1] for name, shares in sorted(held.items()) if name in dropped},
    )


def _expect(session: SiteSession, phase: Phase) -> None:
    if session.phase != phase:
        raise _would_expose(f"a second or an early message, after the site's {session.phase}")


def _check_number(sites: int, least: int) -> None:
    if sites < least:
        raise too_few(sites, least)


def _check_book(session: SiteSession, book: KeyBook, known: Mapping[str, bytes]) -> None:
    if book.terms.to_json() != session.terms:
        raise unfit("book of keys", "terms of another session")
    own = book.adverts.get(session.site)
    wanted = [keys.public_of(bytes.fromhex(key)) for key in (session.sealing, session.masking)]
    if own is None or [own.sealing_key, own.mask_key] != wanted:
        raise unfit("book of keys", "another key under this site's name, or none")
    for name, advert in sorted(book.adverts.items()):
        check_advert(advert, book.terms, known.get(name))
    signers = {advert.signing_key for advert in book.adverts.values()}
    if len(signers) < len(book.adverts):
        raise unfit("book of keys", "one signing key under two names")
    _check_number(len(book.adverts), book.least)


def check_advert(advert: KeyAdvert, terms: Terms, known: bytes | None) -> None:
    """Refuse keys that are not signed by whom they name.

    Args:
        advert: The keys.
        terms: Of the session they are for.
        known: Signing key known under that name; None where none is.

    Raises:
        PrivacyError: The signature is not of these keys, or by another key (HF-610).
    """
    if known is not None and advert.signing_key != known:
        raise unfit(
            f"keys of site {advert.site}",
            "signed by another key than the one known under that name",
            "Compare the site's fingerprint with its administrator",
        )
    if not keys.is_signed(advert.signing_key, advert.signature, advert.signed_text(terms.session)):
        raise unfit(f"keys of site {advert.site}", "no signature, or that of other keys")


def _pair_key(masking: bytes, book: KeyBook, name: str) -> bytes:
    peer, session = book.adverts[name].mask_key, book.terms.session
    try:
        return keys.agree(masking, peer, purpose=MASK, session=session)
    except ValueError as error:
        raise unfit(f"keys of site {name}", "a mask key that gives everybody one secret") from error


def _seal_key(session: SiteSession, book: KeyBook, sender: str, receiver: str) -> bytes:
    other = receiver if sender == session.site else sender
    try:
        return keys.agree(
            bytes.fromhex(session.sealing),
            book.adverts[other].sealing_key,
            purpose=canonical(["message", sender, receiver]),
            session=book.terms.session,
        )
    except ValueError as error:
        raise unfit(f"keys of site {other}", "a key that gives everybody one secret") from error


def _letter(session: SiteSession, book: KeyBook, name: str, own: int, pair: int) -> bytes:
    key = _seal_key(session, book, session.site, name)
    text = own.to_bytes(_SHARE_BYTES, "big") + pair.to_bytes(_SHARE_BYTES, "big")
    return keys.seal(key, text, book.transcript)


def _opened(
    session: SiteSession, book: KeyBook, name: str, messages: Mapping[str, bytes]
) -> tuple[int, int]:
    message = messages.get(name)
    key = _seal_key(session, book, name, session.site)
    text = None if message is None else keys.open_seal(key, message, book.transcript)
    if text is None or len(text) != 2 * _SHARE_BYTES:
        raise unfit(f"message of site {name}", "missing, of another session, or changed on its way")
    return (
        int.from_bytes(text[:_SHARE_BYTES], "big"),
        int.from_bytes(text[_SHARE_BYTES:], "big"),
    )


def too_few(sites: int, least: int) -> PrivacyError:
    """Return the error for a sum of too few sites (HF-611)."""
    return PrivacyError(
        611,
        where="secure aggregation",
        seen=f"{sites} sites are left",
        wanted=f"a sum is opened of {least} at least",
    )


def _would_expose(seen: str) -> PrivacyError:
    return PrivacyError(612, where="secure aggregation", seen=seen)
