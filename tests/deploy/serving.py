"""Real servers on loopback, in a thread of the test."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import uvicorn

from healthfm_server.deploy.gateway_tls import PeerProtocol

PATIENCE_S = 600.0
"""How long a test waits for an answer: more than a loaded machine needs."""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(app, port, context=None):
    """Serve `app` on loopback in a thread, as the real process does."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=PeerProtocol,
        loop="asyncio",
        ws="none",
        log_level="error",
    )
    config.load()
    config.ssl = context
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended while it started"
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
