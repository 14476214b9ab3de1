"""``enroll``: make this site's keys and its request, and take in the kit that comes back."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_client.commands import root_of, takes_root, takes_site
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy, not_enrolled, policy_permitting
from healthfm_core.command_line import Command
from healthfm_core.errors import ConfigError
from healthfm_core.modalities.registry import modality_names
from healthfm_core.stdout import say
from healthfm_core.trust import files
from healthfm_core.trust.kit import Kit, install_kit
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("--study", metavar="URL", help="the study's address, https://HOST:PORT")
    parser.add_argument("--name", help="this site's name, as the study shall call it")
    parser.add_argument(
        "--modalities",
        nargs="*",
        choices=sorted(modality_names()),
        default=[],
        help="what the site means to bring: the request names them, and site.yaml permits no "
        "other; none: the request names none, and what is brought is what site.yaml permits",
    )
    parser.add_argument(
        "--most-subjects",
        type=int,
        default=0,
        metavar="N",
        help="most training subjects that this site will ever say it has: the request names the "
        "number, and the coordinator holds the site to it; none: the request names none",
    )
    parser.add_argument("--kit", type=Path, help="the kit that the coordinator sent back")
    takes_root(parser)


def run(given: Namespace) -> int:
    """Ask to join, or take in the kit."""
    home = SiteHome(given.site)
    if given.kit is not None:
        _take_in(home, given)
    elif given.study is not None and given.name is not None:
        _ask(home, given)
    else:
        raise ConfigError(
            103,
            where="enroll",
            seen="neither a study with a name for this site, nor a kit",
            wanted="--study URL --name NAME to ask, then --kit FILE --root TEN WORDS",
            do="Give the two that belong together",
        )
    return 0


def _ask(home: SiteHome, given: Namespace) -> None:
    home.begin(given.name, given.study, given.modalities)
    keys = SiteKeys.create(home.keys)
    most = given.most_subjects
    data = make_request(keys, given.name, given.study, given.modalities, most_subjects=most)
    files.replace(home.request, data)
    if not home.policy.exists():
        files.write_new(home.policy, policy_permitting(given.modalities), files.PUBLIC)
    beyond = not_enrolled(SitePolicy.read(home.policy).modalities, given.modalities)
    if beyond:
        say(f"{home.policy} permits more than the request names: {', '.join(beyond)}.")
    say(f"This site's private keys are in {home.keys}; they never leave this machine.")
    say(f"What the site permits stands in {home.policy}: read it, and change what you like.")
    say(f"Send the coordinator {home.request}, and read them these ten words by telephone:")
    say(f"  {read_request(data).words}")
    say("With the kit that comes back, and the ten words that they read to you:")
    say("  healthfm-client enroll --kit FILE --root TEN WORDS")


def _take_in(home: SiteHome, given: Namespace) -> None:
    data = files.read_given(given.kit, "the kit")
    kit = install_kit(data, home.study, SiteKeys.load(home.keys), root_fingerprint=root_of(given))
    say(f"This site is {kit.site} in the study {kit.study} at {kit.url}.")
    for name, value in _facts(kit).items():
        say(f"  {name:12} {value}")
    say("Next: healthfm-client join --store STORE, then healthfm-client doctor")


def _facts(kit: Kit) -> dict[str, str]:
    return {
        "root": kit.root_words,
        "certificate": f"until {kit.certificate.not_valid_after_utc:%Y-%m-%d}",
    }


COMMAND = Command(
    "make this site's keys and request, and install the kit sent back", run, arguments
)
