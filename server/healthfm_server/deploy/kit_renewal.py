"""New certificates for sites, where theirs end soon or the root has changed, for the same keys.

The gateway receives a site's request and returns its kit; it never holds the authority's key.
The run reconciler signs, and nobody outside can reach that. No fingerprint is compared by telephone
again: the request is for the same keys, and comes over a connection that proves one of them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from healthfm_core.errors import TrustError
from healthfm_core.trust import files
from healthfm_core.trust.certificates import RENEWED_DAYS, now_utc
from healthfm_core.trust.kit import make_kit, read_kit
from healthfm_core.trust.request import read_request
from healthfm_core.trust.site_registry import AdmittedSite
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.study_folder import StudyFolder

ASKED: Final = ".request.zip"
MADE: Final = ".kit.zip"


class Renewals:
    """The folder in which requests wait for the reconciler, and kits for their sites.

    Args:
        study: Whose sites they are.
    """

    def __init__(self, study: StudyFolder) -> None:
        self._study = study
        self._folder = study.path / "renewals"

    def ask(self, site: AdmittedSite, data: bytes, now: datetime | None = None) -> bytes | None:
        """Return a site's new kit; None where it is not signed yet, and `data` waits for that.

        Raises:
            TrustError: `data` is no request (HF-805 to HF-807), or not for this site's keys
                (HF-809).
        """
        _check(site, data)
        path = self._folder / f"{site.name}{MADE}"
        if path.is_file():
            kit = path.read_bytes()
            made = read_kit(kit, now=now)
            is_of_root = made.root_fingerprint == self._study.root_fingerprint()
            if is_of_root and made.certificate.not_valid_after_utc > _soon(now):
                return kit
        files.replace(self._folder / f"{site.name}{ASKED}", data)
        return None

    def sign(self, log: AuditLog, now: datetime | None = None) -> None:
        """Sign what waits: for sites on the list, whose newest certificate ends soon.

        Or was signed by another root than the one that signs now.
        """
        for path in sorted(self._folder.glob(f"*{ASKED}")):
            name = path.name.removesuffix(ASKED)
            try:
                self._sign(self._study.sites.site(name), path.read_bytes(), now)
                log.note("certificate renewed", {"site": name})
            except TrustError as error:
                log.note("certificate not renewed", {"site": name, "reason": str(error)[:300]})
            path.unlink()

    def _sign(self, site: AdmittedSite, data: bytes, now: datetime | None) -> None:
        authority = self._study.authority()
        _check(site, data)
        theirs = [row for row in authority.issued() if row.who == site.name]
        until = max((row.until for row in theirs if row.root == authority.number), default="")
        if site.revoked or until > f"{_soon(now):%Y-%m-%dT%H:%M:%SZ}":
            raise TrustError(
                811,
                where=f"site {site.name}",
                seen="it is revoked" if site.revoked else f"it has a certificate until {until}",
                wanted=f"a site on the list, whose certificate ends within {RENEWED_DAYS} days, or "
                "whose root has changed",
                do="Nothing; a new kit by hand is made with: healthfm-server site sign",
            )
        url = self._study.settings.url
        request = read_request(data)
        kit = make_kit(authority, request, url=url, node_id=site.node_id, site=site.name, now=now)
        files.replace(self._folder / f"{site.name}{MADE}", kit)


def _check(site: AdmittedSite, data: bytes) -> None:
    request = read_request(data, f"request of {site.name}")
    if request.fingerprints() != site.fingerprints:
        raise TrustError(
            809,
            where=f"request of {site.name}",
            seen="it is for other keys than the site enrolled with",
            wanted="the keys whose fingerprints were compared",
            do="Send the coordinator the new request.zip, and read them its ten words",
        )


def _soon(now: datetime | None) -> datetime:
    return (now or now_utc()) + timedelta(days=RENEWED_DAYS)
