"""The commands of ``healthfm-client``: one module each, see `healthfm_core.command_line`."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from healthfm_core.errors import TrustError

if TYPE_CHECKING:
    from healthfm_client.site.site_home import SiteHome


def site_of(given: Namespace) -> SiteHome:
    """Return the site of the folder that the command line names.

    Raises:
        TrustError: Nobody enrolled there (HF-830): a mistyped folder is not paused or left.
    """
    from healthfm_client.site.site_home import SiteHome  # here: commands of a store do not need it

    home = SiteHome(given.site)
    if home.keys.exists():
        return home
    raise TrustError(
        830,
        where=str(given.site),
        seen="no site enrolled in this folder",
        wanted="the folder that healthfm-client enroll wrote to",
        do="Name it with --site, or in HEALTHFM_SITE",
    )


def takes_site(parser: ArgumentParser) -> None:
    """Add the option that names the site's folder."""
    parser.add_argument(
        "--site",
        type=Path,
        default=Path(os.environ.get("HEALTHFM_SITE", ".")),
        help="the site's folder (default: $HEALTHFM_SITE, else this folder)",
    )


def takes_root(parser: ArgumentParser) -> None:
    """Add the option that takes what the coordinator read to the site's administrator."""
    parser.add_argument(
        "--root",
        nargs="+",
        metavar="WORD",
        help="the ten words that the coordinator read to you (or the root's fingerprint)",
    )


def root_of(given: Namespace) -> str | None:
    """Return the root's fingerprint as it was typed, in words or digits; None where it was not."""
    return None if given.root is None else " ".join(given.root)
