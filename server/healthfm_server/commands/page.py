"""``page``: the study in a browser, on this machine."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from healthfm_core.command_line import Command
from healthfm_server.commands import study_of, takes_study

PORT: Final = 8765


def arguments(parser: ArgumentParser) -> None:
    """Add ``--port``."""
    takes_study(parser)
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        help=f"port on loopback; 0 takes a free one (default: {PORT})",
    )


def run(given: Namespace) -> int:
    """Serve the page until interrupted; the web server is imported here, ``--help`` needs none."""
    from healthfm_server.page.page_process import serve_page

    serve_page(study_of(given), given.port)
    return 0


COMMAND = Command("watch the study in a browser, by a link that works once", run, arguments)
