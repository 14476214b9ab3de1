"""A page's process: it listens on loopback."""

from __future__ import annotations

import logging
import socket
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from healthfm_core.errors import RunError
from healthfm_core.local_page.live_updates import LivePages

LOOPBACK: Final = "127.0.0.1"
GOODBYE_S: Final = 2
"""How long streams of events may go on after an interruption."""


def server(app: ASGIApp, live: LivePages) -> uvicorn.Server:
    """Return the server of a page, without a listener of its own.

    Args:
        app: The page.
        live: Its parts that change, whose streams end with the server.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    serving = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            ws="none",
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GOODBYE_S,
        )
    )
    live.is_over = lambda: serving.should_exit
    return serving


def listener(port: int) -> socket.socket:
    """Return a socket that listens on loopback.

    Args:
        port: 0 takes a free one.

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
