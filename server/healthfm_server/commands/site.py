"""``site sign|add|revoke|list``: who may take part."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from healthfm_core.errors import TrustError
from healthfm_core.trust import files, fingerprint
from healthfm_core.trust.kit import make_kit
from healthfm_core.trust.request import Request, read_request
from healthfm_server.commands import Command, study_of, takes_study
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_status import study_status


def _configure_sign(parser: ArgumentParser) -> None:
    takes_study(parser)
    parser.add_argument("request", type=Path, help="the request file that the site sent")
    parser.add_argument("--out", type=Path, help="where to write the kit (default: <site>-kit.zip)")
    parser.add_argument("--name", help="the site's name, where it is to be another than it says")
    parser.add_argument("--renew", action="store_true", help="new keys for a site on the list")
    parser.add_argument(
        "--compared",
        metavar="FINGERPRINT",
        help="the fingerprint of the site's tls key, as the site read it to you",
    )


def sign(arguments: Namespace) -> Iterator[str]:
    """Admit a site: without ``--compared`` only show what is to be compared."""
    study = study_of(arguments)
    request = read_request(files.read(arguments.request, "the request"), arguments.request.name)
    name = arguments.name or request.site
    yield f"site {name}: {', '.join(request.modalities)}; request made {request.made}"
    for key, value in request.fingerprints().items():
        yield f"  {key:8} {value}"
    if arguments.compared is None:
        yield "Ask the site to read you its tls fingerprint; then sign with --compared FINGERPRINT"
        return
    _compare(request, arguments.compared)
    out = arguments.out or Path(f"{name}-kit.zip")
    files.write_new(out, _admit(study, request, name, renew=arguments.renew), files.PUBLIC)
    study.audit("command").note("site admitted", {"site": name, **request.fingerprints()})
    yield f"the kit is in {out}: send it to the site, and read them the root's fingerprint:"
    yield f"  {study.authority().fingerprint}"


def _admit(study: StudyFolder, request: Request, name: str, *, renew: bool) -> bytes:
    from healthfm_server.deploy.flower_superlink import forget_node, register_node

    key = load_ssh_public_key(request.node)
    if not isinstance(key, EllipticCurvePublicKey):
        raise files.unusable(Path("request"), "a node key of another kind than P-384")
    known = study.sites.sites().get(name)
    if known is None or renew:
        node_id = register_node(study.database, key)
        if known is None:
            study.sites.admit(request, node_id, name=name)
        else:
            study.sites.renew(request, node_id, name=name)
            if known.node_id != node_id:
                forget_node(study.database, known.node_id)
    else:
        node_id = study.sites.admit(request, known.node_id, name=name).node_id
    return make_kit(study.authority(), request, url=study.settings.url, node_id=node_id, site=name)


def _compare(request: Request, told: str) -> None:
    ours = request.fingerprints()["tls"]
    if not fingerprint.is_one(told) or not fingerprint.same(ours, told):
        raise TrustError(
            809,
            where=f"request of {request.site}",
            seen=f"the fingerprint {ours}",
            wanted=f"the one the site read to you, {told[:100]}",
            do="Do not sign; ask the site by telephone which one is right",
        )


def _configure_revoke(parser: ArgumentParser) -> None:
    takes_study(parser)
    parser.add_argument("site", help="the site's name")


def revoke(arguments: Namespace) -> Iterator[str]:
    """Shut a site out of a running study, at once."""
    from healthfm_server.deploy.flower_superlink import forget_node

    study = study_of(arguments)
    site = study.sites.revoke(arguments.site)
    authority = study.authority()
    authority.revoke(arguments.site)
    study.publish(authority)
    forget_node(study.database, site.node_id)
    study.audit("command").note("site revoked", {"site": site.name})
    yield f"site {site.name} is shut out: its next call is refused"


def list_sites(arguments: Namespace) -> Iterator[str]:
    """Name the sites and the requests that wait."""
    study = study_of(arguments)
    for site in study_status(study)["sites"]:
        seen = site["last_connected"][:19]
        when = f", connected {seen}Z" if seen else ", never connected"
        yield f"{site['site']}: {site['state']}; {', '.join(site['modalities'])}{when}"
    for path in sorted((study.path / "requests").glob("*.zip")):
        yield f"request to be signed: {path}"


COMMANDS = (
    Command("site sign", "admit a site by its request file", _configure_sign, sign),
    Command("site add", "the same as site sign", _configure_sign, sign),
    Command("site revoke", "shut a site out", _configure_revoke, revoke),
    Command("site list", "name the sites and the waiting requests", takes_study, list_sites),
)
