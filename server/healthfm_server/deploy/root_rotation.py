"""How far a change of the root has come: by which root each site's certificate was signed.

A site's node asks the public port every ten minutes which root signs now. Where it is another than
its kit's, it asks for a new kit (`kit_renewal`), and from then on shows a certificate of that root:
who shows one trusts it. What each site showed last is a file of ``renewals/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from healthfm_core.errors import TrustError
from healthfm_core.trust import certificates, files
from healthfm_server.deploy.study_folder import StudyFolder

SHOWN: Final = ".root"


@dataclass(frozen=True)
class RootRotation:
    """A change of the root that is under way.

    Attributes:
        root: Name of the root that signs now.
        waiting: Sites that have not shown a certificate of it, sorted; none that is revoked.
        sites: How many sites there are.
    """

    root: str
    waiting: tuple[str, ...]
    sites: int

    def sentence(self) -> str:
        """Return how far it has come, for a person."""
        have = self.sites - len(self.waiting)
        said = f"{have} of {self.sites} sites have the new root ({self.root})"
        if not self.waiting:
            return f"{said}: healthfm-server rotate retire ends the old one"
        return f"{said}; not yet: {', '.join(self.waiting)}"


def note_shown(study: StudyFolder, site: str, root: str) -> None:
    """Keep by which root the certificate was signed that a site has just shown."""
    path = study.path / "renewals" / f"{site}{SHOWN}"
    if not path.is_file() or path.read_text("utf-8") != root:
        files.replace(path, root.encode())


def root_rotation(study: StudyFolder) -> RootRotation | None:
    """Return how far the change of the root has come; None where one root alone is trusted.

    Raises:
        TrustError: The published roots are missing or damaged (HF-802, HF-803).
    """
    newest, *older = map(certificates.common_name, study.trusted_roots())
    if not older:
        return None
    sites = [name for name, site in sorted(study.sites.sites().items()) if not site.revoked]
    return RootRotation(newest, tuple(s for s in sites if _shown(study, s) != newest), len(sites))


def refuse_retirement(study: StudyFolder) -> None:
    """Refuse to stop trusting older roots while a site would be cut off by it.

    Raises:
        TrustError: Sites have not shown a certificate of the new root (HF-839).
    """
    rotation = root_rotation(study)
    if rotation is not None and rotation.waiting:
        raise TrustError(839, where="rotate retire", seen=_named(rotation))


def _named(rotation: RootRotation) -> str:
    sites = f"{len(rotation.waiting)} of {rotation.sites} sites would be cut off"
    return f"{sites}, they have not shown a certificate of {rotation.root}: " + ", ".join(
        rotation.waiting
    )


def _shown(study: StudyFolder, site: str) -> str:
    path = study.path / "renewals" / f"{site}{SHOWN}"
    return path.read_text("utf-8") if path.is_file() else ""
