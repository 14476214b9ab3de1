"""``site sign``: admit a site by its request file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_core.trust import files
from healthfm_core.trust.request import read_request
from healthfm_server.commands import study_of, takes_study
from healthfm_server.deploy.admission_terms import AdmissionTerms


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
        nargs="+",
        metavar="WORD",
        help="the ten words as the site read them to you (or its tls key's fingerprint)",
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
    if given.compared is None:
        say("Ask the site by telephone to read you its ten words. They have to be:")
        say(f"  {request.words}")
        say("Then sign with --compared and the ten words")
        return 0
    from healthfm_server.deploy.admission import admit_site  # here: it loads Flower

    terms = AdmissionTerms(name, " ".join(given.compared), given.most_subjects, given.renew)
    out = given.out or Path(f"{name}-kit.zip")
    admit_site(study, request, terms, out)
    study.audit("command").note("site admitted", {"site": name, **request.fingerprints()})
    most = study.sites.site(name).most_subjects
    if most:
        say(f"on record: it may say that it has at most {most} training subjects")
    else:
        say("no size is on record for it: --most-subjects N --renew bounds what it may say it has")
    say(f"the kit is in {out}: send it to the site, and read them these ten words by telephone:")
    say(f"  {study.authority().words}")
    return 0


COMMAND = Command("admit a site by its request file", run, arguments)
