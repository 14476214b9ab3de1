"""The coordinator's list of sites: who may answer, from which node, with which keys."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from healthfm_core.errors import TrustError
from healthfm_core.trust import files
from healthfm_core.trust.authority import unknown_site
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.request import EnrolmentRequest

REGISTRY_FILE: Final = "sites.json"


@dataclass(frozen=True)
class AdmittedSite:
    """A site that was admitted.

    Attributes:
        name: Its name in this study.
        node_id: Flower's number of its node; a reply from another node is refused.
        node: Flower's public node key, as OpenSSH writes it.
        signing: The site's public signing key, as PEM.
        modalities: What it said it would bring.
        fingerprints: Of its keys, as they were compared.
        admitted: When, ISO 8601 in UTC.
        revoked: When it was shut out, empty while it may answer.
        most_subjects: Most training subjects that it may register with, as agreed when it was
            admitted; 0 where that was before sizes were recorded, or none was named.
    """

    name: str
    node_id: int
    node: str
    signing: str
    modalities: tuple[str, ...]
    fingerprints: dict[str, str]
    admitted: str
    revoked: str = ""
    most_subjects: int = 0


class Registry:
    """The list, in one file that is replaced whole.

    Args:
        path: Of the file; one that is not there is an empty list.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def sites(self) -> dict[str, AdmittedSite]:
        """Return every site by name, the revoked ones too.

        Raises:
            TrustError: The file is damaged (HF-802).
        """
        if not self.path.exists():
            return {}
        try:
            rows = json.loads(files.read(self.path, "the list of sites"))
            sites = [
                AdmittedSite(**{**row, "modalities": tuple(row["modalities"])}) for row in rows
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise files.unusable(self.path, "the list of sites is damaged") from error
        return {site.name: site for site in sites}

    def admit(
        self,
        request: EnrolmentRequest,
        node_id: int,
        *,
        name: str | None = None,
        most_subjects: int = 0,
        now: datetime | None = None,
    ) -> AdmittedSite:
        """Put a site on the list and return it.

        Raises:
            TrustError: Another site has its name or its node (HF-812).
        """
        sites = self.sites()
        site = AdmittedSite(
            name=name or request.site,
            node_id=node_id,
            node=request.node.decode(),
            signing=request.signing_pem().decode(),
            modalities=request.modalities,
            fingerprints=request.fingerprints(),
            admitted=f"{now or now_utc():%Y-%m-%dT%H:%M:%SZ}",
            most_subjects=most_subjects,
        )
        if any(site.name == s.name or node_id == s.node_id for s in sites.values()):
            seen = "its name or its node is on the list already"
            raise TrustError(812, where=f"site {site.name}", seen=seen)
        self._write({**sites, site.name: site})
        return site

    def renew(
        self,
        request: EnrolmentRequest,
        node_id: int,
        *,
        name: str | None = None,
        most_subjects: int = 0,
    ) -> AdmittedSite:
        """Give a site on the list new keys or a new node, after a rotation or a loss.

        Raises:
            TrustError: There is none of that name (HF-811).
        """
        old = self.site(name or request.site)
        site = replace(
            old,
            node_id=node_id,
            node=request.node.decode(),
            signing=request.signing_pem().decode(),
            modalities=request.modalities,
            fingerprints=request.fingerprints(),
            revoked="",
            most_subjects=most_subjects or old.most_subjects,
        )
        self._write({**self.sites(), old.name: site})
        return site

    def revoke(self, name: str, now: datetime | None = None) -> AdmittedSite:
        """Shut a site out and return it.

        Raises:
            TrustError: There is none of that name (HF-811).
        """
        old = self.site(name)
        site = replace(old, revoked=old.revoked or f"{now or now_utc():%Y-%m-%dT%H:%M:%SZ}")
        self._write({**self.sites(), name: site})
        return site

    def site(self, name: str) -> AdmittedSite:
        """Return a site.

        Raises:
            TrustError: There is none of that name (HF-811).
        """
        sites = self.sites()
        if name not in sites:
            raise unknown_site(name)
        return sites[name]

    def _write(self, sites: dict[str, AdmittedSite]) -> None:
        rows = [asdict(site) for _, site in sorted(sites.items())]
        files.replace(self.path, (json.dumps(rows, indent=1) + "\n").encode())
