"""Admits sites and shuts them out: for the command line and the page."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from healthfm_core.errors import TrustError
from healthfm_core.trust import files, fingerprint
from healthfm_core.trust.kit import make_kit
from healthfm_core.trust.request import EnrolmentRequest
from healthfm_core.trust.site_registry import AdmittedSite
from healthfm_server.deploy.admission_terms import AdmissionTerms
from healthfm_server.deploy.flower_superlink import forget_node, register_node
from healthfm_server.deploy.study_folder import StudyFolder


def admit_site(
    study: StudyFolder, request: EnrolmentRequest, terms: AdmissionTerms, out: Path
) -> None:
    """Put a site on the list and write its kit.

    Args:
        study: The study.
        request: The site's.
        terms: How it is admitted.
        out: Where the kit goes.

    Raises:
        TrustError: The words are others (HF-809) or do not cover all keys (HF-807), there is a
            file at `out` (HF-801), or another site has its name or node (HF-812).
    """
    _compare(request, terms.compared)
    files.write_new(out, _admit(study, request, terms), files.PUBLIC)


def revoke_site(study: StudyFolder, name: str) -> AdmittedSite:
    """Shut a site out, at once, and return it.

    Raises:
        TrustError: There is none of that name (HF-811).
    """
    site = study.sites.revoke(name)
    authority = study.authority()
    authority.revoke(name)
    study.publish(authority)
    forget_node(study.database, site.node_id)
    return site


def _admit(study: StudyFolder, request: EnrolmentRequest, terms: AdmissionTerms) -> bytes:
    name, key = terms.name, load_ssh_public_key(request.node)
    if not isinstance(key, EllipticCurvePublicKey):
        raise files.unusable(Path("request"), "a node key of another kind than P-384")
    known = study.sites.sites().get(name)
    most = terms.most_subjects
    if most is None:  # who renews does not raise by it what was agreed
        most = (known.most_subjects if known else 0) or request.most_subjects
    if known is None or terms.renew:
        node_id = register_node(study.database, key)
        if known is None:
            study.sites.admit(request, node_id, name=name, most_subjects=most)
        else:
            study.sites.renew(request, node_id, name=name, most_subjects=most)
            if known.node_id != node_id:
                forget_node(study.database, known.node_id)
    else:
        node_id = study.sites.admit(request, known.node_id, name=name).node_id
    return make_kit(study.authority(), request, url=study.settings.url, node_id=node_id, site=name)


def _compare(request: EnrolmentRequest, compared: str) -> None:
    """Refuse a request that is not the site's.

    Raises:
        TrustError: Its words are others (HF-809), or do not cover all of its keys (HF-807).
    """
    where = f"request of {request.site}"
    do = "Do not sign; ask the site by telephone which one is right"
    fingerprint.refuse_other(request.fingerprints()["tls"], compared, where=where, do=do)
    if not request.one_covers_all:
        raise TrustError(
            807,
            where=where,
            seen="the key that was compared did not sign the site's other two",
            do="Ask the site to update, run the same enroll again, and send the new request.zip",
        )
