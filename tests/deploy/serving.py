"""Real servers on loopback, in a thread of the test."""

from __future__ import annotations

import asyncio
import base64
import queue
import socket
import ssl
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from healthfm_core.trust.kit import make_kit, read_kit, write_for_tls
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import TLS_KEY, SiteKeys
from healthfm_server.deploy.caller_limits import CallerLimits
from healthfm_server.deploy.gateway import NODE_KEY_HEADER, serve_port

PATIENCE_S = 600.0
"""How long a test waits for an answer: more than a loaded machine needs."""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def gateway_served(study, log, limits=None):
    """Serve a study's public port on loopback, as its process does; yield its TLS and its port."""
    found, done = queue.Queue(), []

    def run():
        try:
            task = serve_port(study, log, limits or CallerLimits(), lambda *made: found.put(made))
            asyncio.run(task)
        except BaseException as error:
            done.append(error)
            found.put(None)

    thread = threading.Thread(target=run)
    thread.start()
    made = found.get(timeout=PATIENCE_S)
    if made is None:
        raise done[0]
    server, context, port = made
    try:
        yield context, port
    finally:
        server.should_exit = True
        thread.join()
    assert not done


@contextmanager
def served(app, port):
    """Serve `app` on loopback in a thread."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        loop="asyncio",
        ws="none",
        log_level="error",
    )
    config.load()
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


class Site:
    """A site with keys and a kit, as `site sign` makes one."""

    def __init__(self, study, folder, name, authority=None, admitted=True):
        self.keys = SiteKeys.create(folder / "keys")
        self.study = study
        request = read_request(make_request(self.keys, name, study.settings.url, ["ehr"]))
        if admitted:
            study.sites.admit(request, node_id=abs(hash(name)))
        authority = authority or study.authority()
        kit = read_kit(make_kit(authority, request, url=study.settings.url, node_id=1))
        self.roots, self.certificate = write_for_tls(kit, folder)
        self.key_file = folder / "keys" / TLS_KEY

    def header(self):
        key = self.keys.node.public_key()
        return base64.b64encode(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def headers(self):
        return {NODE_KEY_HEADER: self.header()}

    def call(self, path="/v1/fleet/pull-messages", body=b"x", key=None):
        headers = {NODE_KEY_HEADER: key} if key else self.headers()
        with self.client() as client:
            return client.post(path, content=body, headers=headers)

    def client(self):
        roots = self.study.server / "trust.pem"
        context = ssl.create_default_context(cafile=roots)
        context.load_cert_chain(self.certificate, self.key_file)
        return httpx.Client(
            base_url=self.study.settings.url, verify=context, trust_env=False, timeout=PATIENCE_S
        )


def anonymous(study):
    context = ssl.create_default_context(cafile=study.server / "trust.pem")
    return httpx.Client(
        base_url=study.settings.url, verify=context, trust_env=False, timeout=PATIENCE_S
    )
