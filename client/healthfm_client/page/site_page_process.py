"""The page's process: one for a site, on loopback; asked again it gives another link."""

from __future__ import annotations

import fcntl
import html
import json
import logging
import os
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from socket import socket
from typing import Final

import httpx

from healthfm_client.page.site_page import SitePage
from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import HealthFMError
from healthfm_core.local_page.page_access import API
from healthfm_core.local_page.page_serving import LOOPBACK, listener, server
from healthfm_core.stdout import say
from healthfm_core.trust import files

PORT: Final = 8766
RUNNING: Final = "page.json"
"""Address and token of the page that runs; its owner's alone."""
LOCK: Final = "page.lock"
OPENER: Final = "open-page.html"
LOG_BYTES: Final = 1_000_000
PATIENCE_S: Final = 10.0


def serve_site_page(home: SiteHome, port: int | None, *, opens: bool) -> None:
    """Serve the page until interrupted; where it is served already, open that by another link.

    Args:
        home: The site.
        port: On loopback, 0: a free one; None: `PORT`, or a free one where that is taken.
        opens: Whether the person's browser is opened.

    Raises:
        RunError: Another program has the port (HF-721).
    """
    home.process.mkdir(parents=True, exist_ok=True)
    with _alone(home.process / LOCK) as is_first:
        if not is_first:
            say("the page is served already; another link, which works once:")
            _show(home, _another_link(home), opens=opens)
            return
        _serve(home, port, opens=opens)


def _serve(home: SiteHome, port: int | None, *, opens: bool) -> None:
    _log_to(home.process / "page.log")
    page = SitePage(home)
    page.view.processes()
    with _listening(port) as listening:
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}"
        running = json.dumps({"url": address, "token": page.token}).encode()
        files.replace(home.process / RUNNING, running, files.PRIVATE)
        say(f"the site's page is at {address}; this link works once:")
        _show(home, f"{address}/sign-in#{page.sessions.link_secret()}", opens=opens)
        say("from another machine: ssh -o ExitOnForwardFailure=yes -L PORT:127.0.0.1:PORT here")
        say("Ctrl-C ends the page; the site goes on")
        try:
            server(page.app(), page.pages.live).run(sockets=[listening])
        finally:
            page.view.close()
            for name in (RUNNING, OPENER):
                (home.process / name).unlink(missing_ok=True)


def _listening(port: int | None) -> socket:
    try:
        return listener(PORT if port is None else port)
    except HealthFMError:
        if port is not None:
            raise
        return listener(0)


def _another_link(home: SiteHome) -> str:
    """Return a new link of the page that runs: whoever holds the lock wrote its address."""
    running = json.loads(files.read_private(home.process / RUNNING, "the page's address"))
    headers = {"authorization": f"Bearer {running['token']}"}
    answer = httpx.post(
        f"{running['url']}{API}/links", headers=headers, trust_env=False, timeout=PATIENCE_S
    )
    answer.raise_for_status()
    return f"{running['url']}/sign-in#{answer.json()['secret']}"


def _show(home: SiteHome, link: str, *, opens: bool) -> None:
    """Print a link, and open it in the person's browser where there is a display.

    Every account of the machine sees what a browser was started with: it is started with a file,
    which the owner alone can read, and which leads to the link.
    """
    say(f"  {link}")
    if not (opens and _has_display()):
        return
    file, safe = home.process / OPENER, html.escape(link)
    page = f'<!doctype html><meta http-equiv="refresh" content="0;url={safe}"><a href="{safe}">Open'
    files.replace(file, page.encode(), files.PRIVATE)
    webbrowser.open(file.resolve().as_uri())


def _has_display() -> bool:
    is_other = sys.platform in ("darwin", "win32")
    return is_other or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _log_to(path: Path) -> None:
    """Let the page's log go to a file of bounded size."""
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("healthfm_client.page")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Yield whether nobody else holds a file; it is held until the end."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, files.PRIVATE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
