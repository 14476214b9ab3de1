"""The commands of ``healthfm-client``: one module each, see `healthfm_core.command_line`."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import TrustError


def site_of(given: Namespace) -> SiteHome:
    """Return the site of the folder that the command line names.

    Raises:
        TrustError: Nobody enrolled there (HF-830): a mistyped folder is not paused or left.
    """
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
