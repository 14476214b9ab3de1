"""``page``: the site in a browser, on this machine, for who does not use a terminal."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from healthfm_client.commands import site_of, takes_site
from healthfm_core.command_line import Command


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument(
        "--port", type=int, help="port on loopback; 0 takes a free one [8766, if it is free]"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the link, and open no browser"
    )


def run(given: Namespace) -> int:
    """Serve the page until interrupted; the web server is imported here, ``--help`` needs none."""
    from healthfm_client.page.site_page_process import serve_site_page

    serve_site_page(site_of(given), given.port, opens=not given.no_browser)
    return 0


COMMAND = Command("open this site's page in a browser, by a link that works once", run, arguments)
