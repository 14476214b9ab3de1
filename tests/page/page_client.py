"""A page on loopback, served as its process does, and clients of it."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Thread

import httpx

from healthfm_core.local_page.page_serving import listener, server


class PageClient:
    """A page, asked as a program and as a browser.

    Attributes:
        page: The page.
        url: Where it is served.
    """

    def __init__(self, page, url):
        self.page = page
        self.url = url
        self._clients = []

    def bearer(self, token):
        """Return a client that shows a token."""
        client = self.client()
        client.headers["authorization"] = f"Bearer {token}"
        return client

    def browser(self, given=None):
        """Return a client that has a session, by a token or a one-time link.

        Its addresses are those of the session's pages.
        """
        client = self.client()
        answer = client.post("/sign-in", data={"token": given or self.page.sessions.link_secret()})
        assert answer.status_code == 303, answer.text
        client.base_url = self.url + answer.headers["location"]
        return client

    def client(self):
        """Return a client that has shown nothing."""
        self._clients.append(httpx.Client(base_url=self.url, trust_env=False, timeout=600.0))
        return self._clients[-1]

    def close(self):
        for client in self._clients:
            client.close()


@contextmanager
def served(page, live):
    """Serve a page on loopback; yield what asks it."""
    with listener(0) as listening:
        serving = server(page.app(), live)
        thread = Thread(target=serving.run, kwargs={"sockets": [listening]})
        thread.start()
        asking = PageClient(page, f"http://127.0.0.1:{listening.getsockname()[1]}")
        try:
            yield asking
        finally:
            asking.close()
            serving.should_exit = True
            thread.join()


def location(client, answer):
    """Return where an answer leads, below the session's own address."""
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].removeprefix(str(client.base_url.path).rstrip("/"))
