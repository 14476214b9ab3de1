"""The page's process: it listens on loopback, and prints a link that works once."""

from __future__ import annotations

from healthfm_core.local_page.page_serving import LOOPBACK, listener, server
from healthfm_core.stdout import say
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.page.coordinator_page import CoordinatorPage


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
        server(page.app(), page.views.live).run(sockets=[listening])
