"""``site sign``: admit a site by its request file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from healthfm_core.command_line import Command
from healthfm_core.errors import TrustError
from healthfm_core.stdout import say
from healthfm_core.trust import files, fingerprint
from healthfm_core.trust.kit import make_kit
from healthfm_core.trust.request import EnrolmentRequest, read_request
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.study_folder import StudyFolder


def arguments(parser: ArgumentParser) -> None:
    """Name the request, the kit and the fingerprint that was compared."""
    takes_study(parser)
    parser.add_argument("request", type=Path, help="the request file that the site sent")
    parser.add_argument("--out", type=Path, help="where to write the kit (default: <site>-kit.zip)")
    parser.add_argument("--name", help="the site's name, where it is to be another than it says")
    parser.add_argument("--renew", action="store_true", help="new keys for a site on the list")
    parser.add_argument(
        "--most-subjects",
        type=int,
        metavar="N",
        help="most training subjects that the site may say it has (default: what its request "
        "names, if it names a number)",
    )
    parser.add_argument(
        "--compared",
        metavar="FINGERPRINT",
        help="the fingerprint of the site's tls key, as the site read it to you",
    )


def run(given: Namespace) -> int:
    """Admit a site: without ``--compared`` only show what is to be compared."""
    study = study_of(given)
    request = read_request(files.read_given(given.request, "the request"), given.request.name)
    name = given.name or request.site
    names = ", ".join(request.modalities) or "names no modality"
    say(f"site {name}: {names}; request made {request.made}")
    if request.most_subjects:
        say(f"  it will say it has at most {request.most_subjects} training subjects")
    for key, value in request.fingerprints().items():
        say(f"  {key:8} {value}")
    if given.compared is None:
        say("Ask the site to read you its tls fingerprint; then sign with --compared FINGERPRINT")
        return 0
    _compare(request, given.compared)
    out = given.out or Path(f"{name}-kit.zip")
    files.write_new(out, _admit(study, request, name, given), files.PUBLIC)
    study.audit("command").note("site admitted", {"site": name, **request.fingerprints()})
    most = study.sites.site(name).most_subjects
    if most:
        say(f"on record: it may say that it has at most {most} training subjects")
    else:
        say("no size is on record for it: --most-subjects N --renew bounds what it may say it has")
    say(f"the kit is in {out}: send it to the site, and read them the root's fingerprint:")
    say(f"  {study.authority().fingerprint}")
    return 0


def _admit(study: StudyFolder, request: EnrolmentRequest, name: str, given: Namespace) -> bytes:
    from healthfm_server.deploy.flower_superlink import forget_node, register_node

    key = load_ssh_public_key(request.node)
    if not isinstance(key, EllipticCurvePublicKey):
        raise files.unusable(Path("request"), "a node key of another kind than P-384")
    known = study.sites.sites().get(name)
    most = given.most_subjects
    if most is None:  # who renews does not raise by it what was agreed
        most = (known.most_subjects if known else 0) or request.most_subjects
    if known is None or given.renew:
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
    ours = request.fingerprints()["tls"]
    if not fingerprint.is_one(compared) or not fingerprint.same(ours, compared):
        raise TrustError(
            809,
            where=f"request of {request.site}",
            seen=f"the fingerprint {ours}",
            wanted=f"the one the site read to you, {compared[:100]}",
            do="Do not sign; ask the site by telephone which one is right",
        )


COMMAND = Command("admit a site by its request file", run, arguments)
