"""``join``: take part in a study, from now on and after every reboot."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from healthfm_client.commands import root_of, takes_root
from healthfm_client.runtime.site_control import (
    prepare,
    refuse_after_leaving,
    start,
    what_stands_in_the_way,
)
from healthfm_client.runtime.site_supervision import supervision
from healthfm_client.site.site_folder import JoinSettings, SiteFolder, StoreChoice
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site_store.shared_people import of_shared_people
from healthfm_core.command_line import Command
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import stores_below
from healthfm_core.errors import ConfigError
from healthfm_core.stdout import say
from healthfm_core.trust import files
from healthfm_core.trust.certificates import check_valid_now
from healthfm_core.trust.kit import Kit, install_kit
from healthfm_core.trust.site_keys import SiteKeys


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--site",
        type=Path,
        default=Path(os.environ.get("HEALTHFM_SITE", ".")),
        help="the site's folder (default: $HEALTHFM_SITE, else this folder)",
    )
    parser.add_argument("--kit", type=Path, help="the kit that the coordinator sent")
    takes_root(parser)
    parser.add_argument(
        "--store", type=Path, action="append", help="a store to take part with; once, or again"
    )
    parser.add_argument("--proxy", help="http://HOST:PORT, where the site needs one")
    parser.add_argument(
        "--proxy-file",
        type=Path,
        help="a file of your own alone (chmod 600) with http://USER:PASSWORD@HOST:PORT",
    )
    parser.add_argument("--port", type=int, help="on loopback, where 9094 is taken")
    parser.add_argument("--foreground", action="store_true", help="for a container or systemd")


def run(given: Namespace) -> int:
    """Install the kit if one is given, remember the settings, start the processes, and connect."""
    site = SiteHome(given.site)
    refuse_after_leaving(site)
    if given.kit is not None:
        data = files.read_given(given.kit, "the kit")
        install_kit(data, site.study, SiteKeys.load(site.keys), root_fingerprint=root_of(given))
    kit = site.kit()
    check_valid_now(kit.certificate, where="certificate")
    if given.store:
        _say_shared([path for folder in given.store for path in stores_below(folder)])
    _remember(site, given)
    for line in prepare(site):
        say(line)
    if given.foreground:
        supervision(site).become()
    start(site)
    _connect(site, kit)
    return 0


def _connect(site: SiteHome, kit: Kit) -> None:
    """Say that the site takes part once the study has answered it, else why it does not yet.

    Raises:
        HealthFMError: The first thing that stands between this site and the study.
    """
    say(f"the site's processes run; logs in {site.process}")
    error = what_stands_in_the_way(site)
    if error is not None:
        say("they go on trying to connect; what stands in the way now:")
        raise error
    say(f"site {kit.site} takes part in {kit.study} at {kit.url}")
    if site.state() == "paused":
        say("it is paused and answers nothing until: healthfm-client resume")


def _say_shared(paths: Sequence[Path]) -> None:
    """Say how many people are in more than one store.

    Raises:
        StoreError: A store cannot be used, or two contradict each other about a person (HF-2xx).
    """
    sentence = of_shared_people([SiteStore.open(path) for path in paths])
    if sentence:
        say(sentence)


def _remember(site: SiteFolder, given: Namespace) -> None:
    """Put what was given on the command line into ``join.yaml``; the rest stays as it is."""
    named = {"proxy": _proxy(given), "port": given.port}
    changes = {name: value for name, value in named.items() if value is not None}
    if given.store:
        stores = tuple(StoreChoice(path=path.resolve()) for path in given.store)
        kept = site.settings().model_dump() if site.settings_file.is_file() else {}
        site.write_settings(JoinSettings.model_validate({**kept, "stores": stores, **changes}))
    elif changes:
        kept = site.settings().model_dump()
        site.write_settings(JoinSettings.model_validate({**kept, **changes}))


def _proxy(given: Namespace) -> str | None:
    """Return the proxy's address; a password comes from a file, never from the command line.

    Raises:
        ConfigError: A password is on the command line, where every user of the computer reads it
            (HF-103).
        TrustError: Others may read the file (HF-802).
    """
    if given.proxy_file is not None:
        return files.read_private(given.proxy_file, "the proxy's address").decode().strip()
    if given.proxy is not None and "@" in given.proxy:
        raise ConfigError(
            103,
            where="--proxy",
            seen="a name or password on the command line, which every user of this computer reads",
            wanted="http://HOST:PORT, or a file that nobody else may read",
            do="Write the address to a file, chmod 600 it, and give it with --proxy-file FILE",
        )
    return str(given.proxy) if given.proxy is not None else None


COMMAND = Command("take part in the study, also after a restart", run, arguments)
