"""The public port over real sockets: who says nothing, or too little, goes; sites are served."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from healthfm_core.errors import ConfigError
from healthfm_server.deploy import caller_limits, gateway, public_port
from healthfm_server.deploy.caller_limits import CallerLimits, Rate
from healthfm_server.deploy.gateway import NODE_KEY_HEADER
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from tests.deploy.serving import PATIENCE_S, Site, anonymous, free_port, gateway_served, served


async def upstream(request):
    """Stand in for the SuperLink; a ``get-fab`` is 64 MB."""
    body = await request.body()
    if request.url.path.endswith("get-fab"):
        return StreamingResponse(b"x" * 65536 for _ in range(1024))
    return Response(str(len(body)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = StudySettings(
        study="demo", hosts=("127.0.0.1",), port=free_port(), superlink_port=free_port()
    )
    study = StudyFolder.create(tmp_path_factory.mktemp("port") / "study", settings)
    behind = Starlette(routes=[Route("/v1/{rest:path}", upstream, methods=["POST"])])
    with served(behind, settings.superlink_port):
        yield study


@pytest.fixture(scope="module")
def site(study, tmp_path_factory):
    return Site(study, tmp_path_factory.mktemp("north"), "north")


@pytest.fixture
def opened(study, monkeypatch):
    """Open the public port with these limits; everything is looked at often."""
    monkeypatch.setattr(public_port, "SWEEP_S", 0.02)
    with contextlib.ExitStack() as stack:

        def open_(**limits):
            log = study.audit("gateway")
            return stack.enter_context(gateway_served(study, log, CallerLimits(**limits)))[1]

        yield open_


def connected(study, source="127.0.0.1"):
    address = ("127.0.0.1", study.settings.port)
    return socket.create_connection(address, timeout=PATIENCE_S, source_address=(source, 0))


def secured(study, site=None, source="127.0.0.1"):
    context = ssl.create_default_context(cafile=study.server / "trust.pem")
    if site is not None:
        context.load_cert_chain(site.certificate, site.key_file)
    return context.wrap_socket(connected(study, source), server_hostname="127.0.0.1")


def is_ended(connection):
    """Wait until the other side has ended it."""
    with connection, contextlib.suppress(ConnectionError, ssl.SSLError):
        while connection.recv(65536):
            pass
    return True


def noted(study, reason, address="127.0.0.1"):
    """Wait until a refusal with this reason, of this address, is in the log."""
    until = time.monotonic() + PATIENCE_S
    while True:
        rows = [row for row in study.audit("test").rows() if row.get("reason") == reason]
        if any(row["from"] == address for row in rows):
            return True
        assert time.monotonic() < until
        time.sleep(0.02)


def pull(site, body=b"x" * 100, path="pull-messages"):
    head = [
        f"POST /v1/fleet/{path} HTTP/1.1".encode(),
        b"host: x",
        b"flwr-public-key: " + site.header(),
        f"content-length: {len(body)}".encode(),
    ]
    return b"\r\n".join([*head, b"", b""]), body


def test_who_says_nothing_goes(study, opened):
    opened(times={"silent_s": 0.1})
    assert is_ended(connected(study))
    assert noted(study, "no handshake begun")


def test_who_does_not_end_a_handshake_goes(study, opened):
    opened(times={"handshake_s": 0.2})
    connection = connected(study)
    connection.sendall(b"\x16\x03\x01\x02\x00\x01")
    assert is_ended(connection)
    assert noted(study, "handshake too slow")


def test_who_speaks_no_tls_goes(study, opened):
    opened()
    connection = connected(study)
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert is_ended(connection)
    assert noted(study, "not TLS")


def test_who_asks_nothing_goes_and_a_site_has_longer(study, site, opened):
    opened(times={"first_request_s": 0.1})
    known = secured(study, site)
    assert is_ended(secured(study))
    assert noted(study, "nothing asked")
    head, body = pull(site)
    known.sendall(head + body)
    assert b" 200 " in known.recv(100)
    known.close()


@pytest.mark.parametrize("whose", ["a stranger's", "a site's"])
def test_a_head_that_never_ends_goes_however_it_is_fed(study, site, opened, whose):
    opened(times={"head_s": 0.3})
    connection = secured(study, site if whose == "a site's" else None)
    connection.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\n")
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            connection.sendall(f"x-{number}: 1\r\n".encode())
            time.sleep(0.01)
    assert is_ended(connection)
    assert noted(study, "head too slow")


def test_a_body_that_crawls_goes_and_a_slow_hospitals_arrives(study, site, opened):
    """The floor is of bytes within a window; a body ten times above it takes four windows here."""
    opened(times={"body_s": 0.4, "body_bytes": 1000})
    head, body = pull(site, b"x" * 40_000)
    with secured(study, site) as thin:
        thin.sendall(head)
        for at in range(0, len(body), 1000):
            thin.sendall(body[at : at + 1000])
            time.sleep(0.04)
        assert thin.recv(1000).startswith(b"HTTP/1.1 200")
    crawling = secured(study, site)
    crawling.sendall(head)
    with contextlib.suppress(OSError):
        while True:
            crawling.sendall(b"x")
            time.sleep(0.01)
    assert is_ended(crawling)
    assert noted(study, "body too slow")


def test_an_answer_that_nobody_reads_is_given_up(study, site, opened):
    opened(times={"answer_s": 0.5})
    connection = secured(study, site)
    connection.sendall(b"".join(pull(site, path="get-fab")))
    assert noted(study, "answer not read")
    connection.close()


def test_a_strangers_error_ends_the_connection_and_a_sites_does_not(study, site, opened):
    opened()
    with anonymous(study) as client:
        assert client.get("/nothing").headers["connection"] == "close"
    with site.client() as client:
        answer = client.post("/nothing", headers={NODE_KEY_HEADER: site.header()})
        assert (answer.status_code, "connection" in answer.headers) == (404, False)


def test_a_site_is_served_while_silent_strangers_of_its_own_address_overflow(study, site, opened):
    """Its open connection stays, and it can make a new one."""
    port = opened(unknown=64, unknown_address=16)
    with site.client() as before, contextlib.ExitStack() as stack:
        headers = {NODE_KEY_HEADER: site.header()}
        assert before.post("/v1/fleet/pull-messages", headers=headers).status_code == 200
        for _ in range(200):
            stack.enter_context(connected(study))
        assert before.post("/v1/fleet/pull-messages", headers=headers).status_code == 200
        assert site.call().status_code == 200
        assert len(port.callers) <= 64 + 2
    assert noted(study, "made room for another")


def test_an_address_that_comes_too_fast_is_refused_and_another_is_served(study, site, opened):
    opened(connections=Rate(in_all=1000.0, address=5.0, burst_s=1.0))
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            with contextlib.suppress(ConnectionResetError):  # refused while it still connects
                stack.enter_context(connected(study, source="127.0.0.9"))
        assert site.call().status_code == 200
    assert noted(study, "too many connections", "127.0.0.9")


def test_handshakes_that_come_too_fast_wait_their_turn(study, site, opened):
    opened(handshakes=Rate(in_all=1000.0, address=20.0, burst_s=0.05))
    with contextlib.ExitStack() as stack:
        begun = time.monotonic()
        for _ in range(8):
            stack.enter_context(secured(study, source="127.0.0.9"))
        assert time.monotonic() - begun > 0.3


def test_handshakes_that_would_wait_too_long_are_refused(study, site, opened, monkeypatch):
    monkeypatch.setattr(caller_limits, "PATIENCE_S", 0.0)
    opened(handshakes=Rate(in_all=1000.0, address=1.0, burst_s=1.0))
    with secured(study, source="127.0.0.9"):
        connection = connected(study, source="127.0.0.9")
        connection.sendall(b"\x16")
        assert is_ended(connection)
    assert noted(study, "too many handshakes", "127.0.0.9")
    assert site.call().status_code == 200


def test_after_a_restart_the_addresses_of_sites_are_known(study, site, opened):
    assert site.study is study
    study.audit("gateway").note("site connected", {"site": "north", "from": "127.0.0.77"})
    port = opened()
    assert port.callers._is_home("127.0.0.77", port._loop.time())


def test_a_site_with_too_many_connections_loses_its_oldest(study, site, opened):
    port = opened(site_connections=3)
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(secured(study, site)) for _ in range(4)]
        assert is_ended(made[0])
        until = time.monotonic() + PATIENCE_S
        while sum(caller.site == "north" for caller in port.callers) != 3:
            assert time.monotonic() < until
            time.sleep(0.01)
        head, body = pull(site)
        made[-1].sendall(head + body)
        assert b" 200 " in made[-1].recv(100)


def test_a_caller_without_a_place_in_the_registry_is_a_stranger(study, opened, tmp_path):
    port = opened()
    late = Site(study, tmp_path, "late", admitted=False)
    with secured(study, late):
        until = time.monotonic() + PATIENCE_S
        while not (found := [caller for caller in port.callers if caller in port._protocols]):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert [(caller.stage, caller.site) for caller in found] == [("speaking", "")]


def test_when_no_descriptor_is_left_connections_are_taken_again_later(study, opened, monkeypatch):
    monkeypatch.setattr(public_port, "PAUSE_S", 0.05)
    opened()
    accept, failures = socket.socket.accept, [OSError(24, "Too many open files")]

    def failing(listener):
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with anonymous(study) as client:
        assert client.get("/nothing").status_code == 404
    assert not failures


def test_a_port_that_is_taken_is_said(study, opened):
    opened()
    with pytest.raises(OSError, match="in use"), gateway_served(study, study.audit("gateway")):
        pass


def test_a_process_may_open_as_many_files_as_the_system_lets_it():
    most = public_port.raise_descriptors()
    assert public_port.resource.getrlimit(public_port.resource.RLIMIT_NOFILE)[0] >= most


def test_the_limits_are_those_of_study_yaml(tmp_path, monkeypatch):
    settings = StudySettings(study="heart", hosts=("127.0.0.1",))
    study = StudyFolder.create(tmp_path / "study", settings)
    file = study.path / "study.yaml"
    assert "limits" not in file.read_text(), "what nobody chose may change with a release"
    chosen = (
        "limits: {unknown_address: 20, handshakes: {in_all: 90, address: 9}, times: {head_s: 7}}"
    )
    file.write_text(file.read_text() + chosen + "\n")
    taken = []

    async def serve_port(study, log, limits):
        taken.append(limits)

    monkeypatch.setattr(gateway, "serve_port", serve_port)
    gateway.serve(StudyFolder.open(study.path))
    (limits,) = taken
    assert (limits.unknown_address, limits.handshakes.in_all, limits.times.head_s) == (20, 90, 7)
    assert (limits.site_connections, limits.times.silent_s) == (32, 5)


@pytest.mark.parametrize(
    ("limits", "where"),
    [
        ("{unknown: 3}", "limits.unknown"),
        ("{times: {head_s: 0}}", "limits.times.head_s"),
        ("{silence: 3}", "limits.silence"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_where_it_stands(tmp_path, limits, where):
    settings = StudySettings(study="heart", hosts=("127.0.0.1",))
    study = StudyFolder.create(tmp_path / "study", settings)
    file = study.path / "study.yaml"
    file.write_text(file.read_text() + f"limits: {limits}\n")
    with pytest.raises(ConfigError, match=rf"HF-102.*study.yaml, {where}"):
        StudyFolder.open(study.path)
