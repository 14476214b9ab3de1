"""The page's process: it listens on loopback, and prints a link that works once."""

from __future__ import annotations

import logging
import socket
from typing import Final

import uvicorn

from healthfm_core.errors import RunError
from healthfm_core.stdout import say
from healthfm_server.deploy.study_folder import LOOPBACK, StudyFolder
from healthfm_server.page.page_app import CoordinatorPage

GOODBYE_S: Final = 2
"""How long streams of events may go on after an interruption."""


def serve_page(study: StudyFolder, port: int) -> None:
    """Serve the page until interrupted.

    Args:
        study: The study.
        port: On loopback; 0: a free one.

    Raises:
        RunError: Another program has the port (HF-721).
    """
    page = CoordinatorPage(study)
    page.view.status()  # the runs' histories are read before somebody waits for them
    with listener(port) as listening:
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}"
        say(f"study {study.settings.study} is at {address}; this link works once:")
        say(f"  {address}/sign-in#{page.sessions.link_secret()}")
        say("from another machine: ssh -L 8765:127.0.0.1:8765 here, then a token to sign in")
        say("Ctrl-C ends the page; the study goes on")
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        server(page).run(sockets=[listening])


def server(page: CoordinatorPage) -> uvicorn.Server:
    """Return the server of a page, without a listener of its own."""
    serving = uvicorn.Server(
        uvicorn.Config(
            page.app(),
            loop="asyncio",
            ws="none",
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GOODBYE_S,
        )
    )
    page.views.live.is_over = lambda: serving.should_exit
    return serving


def listener(port: int) -> socket.socket:
    """Return a socket that listens on loopback.

    Raises:
        RunError: Another program has the port (HF-721).
    """
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise RunError(
            721,
            where=f"the page's port {port} on loopback",
            seen=error.strerror or "it cannot be listened on",
            wanted="a free port",
            do="Give another with --port; 0 takes a free one",
        ) from error
