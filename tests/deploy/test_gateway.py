"""The public port over real TLS: who gets through to the SuperLink, and what is noted."""

from __future__ import annotations

import socket
import ssl
import time

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from healthfm_core.federation import protocol
from healthfm_core.federation.protocol import Study
from healthfm_core.prometheus_text import MEDIA_TYPE
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys
from healthfm_server.deploy.gateway import NODE_KEY_HEADER
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.site_calls import CallTimes
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.deploy.told_gains import told_gains
from healthfm_server.run_folder.run_store import RunStore
from tests import three_numbers as small
from tests.deploy.serving import (
    PATIENCE_S,
    Site,
    anonymous,
    free_port,
    gateway_served,
    served,
)

GAIN = "/v1/healthfm/gain"


async def upstream(request):
    """Stand in for the SuperLink: answer with what arrived."""
    body = await request.body()
    seen = {"x-seen": str(len(body)), "x-path": request.scope["raw_path"].decode()}
    seen["x-names"] = " ".join(sorted(request.headers))
    return Response(b"answer " + body[:10], headers=seen)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = StudySettings(
        study="demo",
        hosts=("127.0.0.1",),
        bind="127.0.0.1",
        port=free_port(),
        superlink_port=free_port(),
        most_body_mb=6,
    )
    return StudyFolder.create(tmp_path_factory.mktemp("gateway") / "study", settings)


@pytest.fixture(scope="module", autouse=True)
def gateway(study):
    """The gateway and the stand-in behind it."""
    log = study.audit("gateway")
    behind = Starlette(routes=[Route("/v1/{rest:path}", upstream, methods=["POST"])])
    with (
        served(behind, study.settings.superlink_port),
        gateway_served(study, log) as (context, _),
    ):
        yield context


def noted(study, **said):
    """Wait for a line of the audit log that says so; a count of others may come after it."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if any(said.items() <= row.items() for row in study.audit("test").rows()):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def site(study, tmp_path_factory):
    return Site(study, tmp_path_factory.mktemp("a"), "a")


def test_a_site_gets_through_and_its_answer_comes_back(site):
    answer = site.call(body=b"y" * 5_500_000)
    assert (answer.status_code, answer.headers["x-seen"]) == (200, "5500000")
    assert answer.content == b"answer yyyyyyyyyy"


def test_when_a_site_called_is_written_for_other_processes(study, site):
    study.process.mkdir(exist_ok=True)
    before = time.time()
    site.call()
    until = time.monotonic() + PATIENCE_S
    while (seen := CallTimes.read(study.calls, time.time())) is None or not seen.sites:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert before - 0.1 <= seen.sites["a"] <= time.time()
    assert not seen.is_silent("a")


def test_which_sites_have_a_connection_is_written_for_other_processes(study, site):
    study.process.mkdir(exist_ok=True)

    def written(connections):
        until = time.monotonic() + PATIENCE_S
        while (seen := CallTimes.read(study.calls, time.time())) is None or (
            list(seen.connections) != connections
        ):
            assert time.monotonic() < until
            time.sleep(0.05)

    with site.client() as client:
        client.post("/v1/fleet/pull-messages", content=b"x", headers=site.headers())
        written(["a"])
    written([])  # as when its node is killed


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(site):
    assert site.call(body=b"z" * (6 * 1024 * 1024 + 1)).status_code == 413
    assert site.call(body=(b"z" * 1024 * 1024 for _ in range(8))).status_code == 413


def test_without_a_certificate_nothing_of_flowers_is_reached(study):
    with anonymous(study) as client:
        assert client.post("/v1/fleet/pull-messages", content=b"x").status_code == 401
    said = {"event": "call refused", "reason": "no certificate", "from": "127.0.0.1"}
    assert noted(study, **said)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet//control/start-run",
        "/v1/fleet/..",
        "/v1/fleet/%2e%2e",
        "/v1/fleet/..%2fcontrol%2fstart-run",
        "/v1/fleet/..%5ccontrol",
        "/v1/fleet/pull-messages%00",
        "/v1/fleet/pull%2dmessages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/register-node",
        "/v1/fleet/anything",
        "/v1/healthfm/runs/a%00b/stop",
        "/v1/healthfm/runs/%2e%2e/stop",
        "/v1/healthfm/runs/%ff/stop",
        "/%",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
def test_a_path_that_is_not_published_does_not_exist_even_for_a_site(study, site, path):
    key = b"flwr-public-key: " + site.header()
    line = f"POST {path} HTTP/1.1".encode()
    assert raw(study, site, line, b"host: x", key, b"content-length: 0")[0] == 404
    assert noted(study, event="path refused")


def raw(study, site, *lines, body=b""):
    """Send these lines as they are, over the site's TLS; return status and head of the answer."""
    context = ssl.create_default_context(cafile=study.server / "trust.pem")
    if site is not None:
        context.load_cert_chain(site.certificate, site.key_file)
    address = ("127.0.0.1", study.settings.port)
    with (
        socket.create_connection(address, timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(b"\r\n".join([*lines, b"connection: close", b"", b""]) + body)
        answer = b""
        while piece := secure.recv(65536):
            answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head + b"\r\n\r\n" + rest


PULL = b"POST /v1/fleet/pull-messages HTTP/1.1"


@pytest.mark.parametrize(
    "host",
    [
        b"x/v1/control/start-run?",
        b"127.0.0.1:9/v1/control/list-nodes#",
        b"[",
        b"a@b:c",
        b"\xff",
    ],
)
def test_a_host_header_leads_nowhere_else(study, site, host):
    status, answer = raw(
        study,
        site,
        PULL,
        b"host: " + host,
        b"flwr-public-key: " + site.header(),
        b"content-length: 0",
    )
    assert (status, b"x-path: /v1/fleet/pull-messages" in answer) in ((200, True), (400, False))
    assert raw(study, None, b"POST /v1/control/x HTTP/1.1", b"host: " + host)[0] in (404, 400)


@pytest.mark.parametrize(
    "lines",
    [
        [b"content-length: 3", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked", b"content-length: 30"],
        [b"content-length: 0", b"transfer-encoding: chunked"],
    ],
)
def test_two_lengths_of_one_body_are_refused(study, site, lines):
    key = b"flwr-public-key: " + site.header()
    status, _ = raw(study, site, PULL, b"host: x", key, *lines, body=b"3\r\nabc\r\n0\r\n\r\n")
    assert status == 400
    assert noted(study, reason="two lengths")


@pytest.mark.parametrize("given", [b"Bearer \xff\xfe", b"Bearer", b"Bearer a b", b"\xe9 x"])
def test_a_token_that_is_no_text_is_a_wrong_one(study, given):
    lines = [b"GET /v1/healthfm/status HTTP/1.1", b"host: x", b"authorization: " + given]
    assert raw(study, None, *lines)[0] == 401


def test_the_superlink_learns_nothing_that_a_caller_may_invent(study, site):
    invented = {
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-proto": "http",
        "forwarded": "for=10.0.0.1",
        "x-real-ip": "10.0.0.1",
        "authorization": "Bearer stolen",
        "cookie": "a=b",
    }
    flowers = {
        NODE_KEY_HEADER: site.header().decode(),
        "flwr-signature": "s",
        "flwr-timestamp": "t",
        "flwr-component-name": "SuperNode",
        "content-type": "application/protobuf",
    }
    with site.client() as client:
        answer = client.post("/v1/fleet/pull-messages", content=b"x", headers=invented | flowers)
    names = set(answer.headers["x-names"].split())
    assert names >= set(flowers)
    assert not names & set(invented)


def test_a_node_that_activates_without_end_is_one_line_a_minute(study, tmp_path):
    site = Site(study, tmp_path, "restless")
    for _ in range(5):
        assert site.call("/v1/fleet/activate-node").status_code == 200
    rows = study.audit("test").rows("site connected")
    assert [row["site"] for row in rows].count("restless") == 1


def test_another_sites_node_key_is_refused(study, site, tmp_path):
    other = Site(study, tmp_path, "other")
    assert site.call(key=other.header()).status_code == 401
    assert noted(study, reason="another site's node key")
    assert site.call(key=b"rubbish").status_code == 401


def test_a_certificate_of_another_authority_fails_in_the_handshake(study, tmp_path):
    foreign = Authority.create(tmp_path / "foreign", "demo")
    stranger = Site(study, tmp_path, "stranger", authority=foreign, admitted=False)
    with pytest.raises(httpx.TransportError):
        stranger.call()
    assert noted(study, event="handshake refused")


def test_a_site_that_was_never_admitted_is_refused(study, tmp_path):
    assert Site(study, tmp_path, "late", admitted=False).call().status_code == 401
    assert noted(study, reason="unknown site")


def test_a_revoked_site_is_refused_on_its_open_connection_and_in_its_next_handshake(
    study, gateway, tmp_path
):
    site = Site(study, tmp_path, "bad")
    with site.client() as client:
        headers = {NODE_KEY_HEADER: site.header()}
        assert (
            client.post("/v1/fleet/pull-messages", content=b"", headers=headers).status_code == 200
        )
        study.sites.revoke("bad")
        assert (
            client.post("/v1/fleet/pull-messages", content=b"", headers=headers).status_code == 401
        )
    assert noted(study, reason="revoked site")
    authority = study.authority()
    authority.revoke("bad")
    study.publish(authority)
    gateway.follow()  # unless it has done so by itself
    with pytest.raises(httpx.TransportError):
        site.call()
    assert noted(study, reason="certificate revoked")


def test_a_new_server_certificate_is_taken_up_without_a_restart(study, gateway, site):
    study.issue_server(study.authority(), ["127.0.0.1", "new.example"])
    gateway.follow()  # unless it has done so by itself
    with site.client() as client, client.stream("GET", "/v1/healthfm/hello") as answer:
        shown = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert()
    assert ("DNS", "new.example") in shown["subjectAltName"]


def test_own_routes_ask_for_the_right_role(study, site):
    viewer = {"authorization": f"Bearer {study.tokens.add('ada', 'viewer')}"}
    with anonymous(study) as client:
        assert client.get("/v1/healthfm/status").status_code == 401
        assert client.get("/v1/healthfm/status", headers=viewer).json()["study"] == "demo"
        refused = client.post("/v1/healthfm/runs/first/stop", headers=viewer)
        assert refused.status_code == 403
        assert noted(study, reason="wrong role")
        study.tokens.revoke("ada")
        assert client.get("/v1/healthfm/status", headers=viewer).status_code == 401
    with site.client() as client:
        said = client.get("/v1/healthfm/hello").json()
        assert (said["study"], said["site"], said["protocol"]) == ("demo", "a", protocol.VERSION)


def test_a_request_to_enrol_is_kept_for_the_coordinator(study, tmp_path):
    token = {"authorization": f"Bearer {study.tokens.add('invited', 'enrolment')}"}
    request = make_request(SiteKeys.create(tmp_path), "new", study.settings.url, ["ehr"])
    with anonymous(study) as client:
        assert client.post("/v1/healthfm/enrolment", content=request).status_code == 401
        answer = client.post("/v1/healthfm/enrolment", content=request, headers=token)
        assert answer.json()["fingerprints"] == read_request(request).fingerprints()
        spoilt = client.post("/v1/healthfm/enrolment", content=request[:-9], headers=token)
        assert (spoilt.status_code, "HF-806" in spoilt.json()["error"]) == (400, True)
    assert [p.read_bytes() for p in (study.path / "requests").glob("new-*.zip")] == [request]


def test_what_a_site_tells_of_its_own_model_is_taken_by_its_certificate_alone(study, site):
    order = RunOrder.give(study.runs, "told", small.config(), None)
    store = RunStore.create(order.folder, small.config())
    agreed = Study(protocol.VERSION, "0123abcd", small.config(), small.VOCABULARY, ("ehr",))
    store.save_study(agreed)
    store.note("prepared", site="a", modalities=["ehr"], subjects=40, coverage={})
    body = {"study": agreed.hash, "metrics": {"gain/overall/auroc": 0.125}}
    with anonymous(study) as client:
        assert client.post(GAIN, json=body).status_code == 401
    assert told_gains(order.folder) == {}
    with site.client() as client:
        told = client.post(GAIN, json=body)
        assert (told.status_code, told.json()) == (200, {"run": "told"})
        wrong = client.post(GAIN, json={**body, "study": "0" * 64})
        assert (wrong.status_code, "HF-722" in wrong.json()["error"]) == (400, True)
        large = {**body, "metrics": {f"gain/{n}": 0.125 for n in range(20_000)}}
        assert client.post(GAIN, json=large).status_code == 413
    assert told_gains(order.folder) == {"a": {"gain/overall/auroc": 0.125}}
    (noted,) = study.audit("test").rows("gain told")
    assert (noted["site"], noted["run"]) == ("a", "told")


def test_figures_are_told_to_a_token_that_may_look_and_to_nobody_else(study):
    viewer, enrolment = study.tokens.add("graph", "viewer"), study.tokens.add("eve", "enrolment")
    with anonymous(study) as client:
        assert client.get("/metrics").status_code == 401
        for token, status in (("x" * 43, 401), (enrolment, 403), (viewer, 200)):
            told = client.get("/metrics", headers={"authorization": f"Bearer {token}"})
            assert told.status_code == status
    assert told.headers["content-type"] == MEDIA_TYPE
    assert 'study="demo"' in told.text


def test_old_tls_is_refused(study):
    context = ssl.create_default_context(cafile=study.server / "trust.pem")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    client = httpx.Client(
        base_url=study.settings.url, verify=context, trust_env=False, timeout=PATIENCE_S
    )
    with client, pytest.raises(httpx.TransportError):
        client.get("/v1/healthfm/hello")
