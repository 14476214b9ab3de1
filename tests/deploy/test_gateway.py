"""The public port over real TLS: who gets through to the SuperLink, and what is noted."""

from __future__ import annotations

import base64
import ssl

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from healthfm_core.federation import protocol
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.kit import make_kit, read_kit, write_for_tls
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import TLS_KEY, SiteKeys
from healthfm_server.deploy.gateway import NODE_KEY_HEADER, make_gateway
from healthfm_server.deploy.gateway_tls import GatewayTLSContext
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from tests.deploy.serving import PATIENCE_S, free_port, served


async def upstream(request):
    """Stand in for the SuperLink: answer with what arrived."""
    body = await request.body()
    seen = {"x-seen": str(len(body)), "x-authorization": request.headers.get("authorization", "-")}
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
    context = GatewayTLSContext.of(study.server / "identity.pem", study.server / "trust.pem", log)
    behind = Starlette(routes=[Route("/v1/{rest:path}", upstream, methods=["POST"])])
    with (
        served(behind, study.settings.superlink_port),
        served(make_gateway(study, log), study.settings.port, context),
    ):
        yield context


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

    def call(self, path="/v1/fleet/pull-messages", body=b"x", key=None):
        with self.client() as client:
            return client.post(path, content=body, headers={NODE_KEY_HEADER: key or self.header()})

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


def last(study):
    return study.audit("test").rows()[-1]


@pytest.fixture(scope="module")
def site(study, tmp_path_factory):
    return Site(study, tmp_path_factory.mktemp("a"), "a")


def test_a_site_gets_through_and_its_answer_comes_back(site):
    answer = site.call(body=b"y" * 5_500_000)
    assert (answer.status_code, answer.headers["x-seen"]) == (200, "5500000")
    assert answer.content == b"answer yyyyyyyyyy"


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(site):
    assert site.call(body=b"z" * (6 * 1024 * 1024 + 1)).status_code == 413
    assert site.call(body=(b"z" * 1024 * 1024 for _ in range(8))).status_code == 413


def test_without_a_certificate_nothing_of_flowers_is_reached(study):
    with anonymous(study) as client:
        assert client.post("/v1/fleet/pull-messages", content=b"x").status_code == 401
    row = last(study)
    assert (row["event"], row["reason"]) == ("call refused", "no certificate")
    assert row["from"] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet//control/start-run",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
def test_a_path_that_is_not_published_does_not_exist_even_for_a_site(study, site, path):
    answer = site.call(path)
    assert answer.status_code == 404
    assert last(study)["event"] == "path refused"


def test_another_sites_node_key_is_refused(study, site, tmp_path):
    other = Site(study, tmp_path, "other")
    assert site.call(key=other.header()).status_code == 401
    assert last(study)["reason"] == "another site's node key"
    assert site.call(key=b"rubbish").status_code == 401


def test_a_certificate_of_another_authority_fails_in_the_handshake(study, tmp_path):
    foreign = Authority.create(tmp_path / "foreign", "demo")
    stranger = Site(study, tmp_path, "stranger", authority=foreign, admitted=False)
    with pytest.raises(httpx.TransportError):
        stranger.call()
    assert last(study)["event"] == "handshake refused"


def test_a_site_that_was_never_admitted_is_refused(study, tmp_path):
    assert Site(study, tmp_path, "late", admitted=False).call().status_code == 401
    assert last(study)["reason"] == "unknown site"


def test_a_revoked_site_is_refused_on_its_open_connection_and_in_its_next_handshake(
    study, gateway, tmp_path
):
    site = Site(study, tmp_path, "bad")
    with site.client() as client:
        headers = {NODE_KEY_HEADER: site.header()}
        assert client.post("/v1/fleet/x", content=b"", headers=headers).status_code == 200
        study.sites.revoke("bad")
        assert client.post("/v1/fleet/x", content=b"", headers=headers).status_code == 401
    assert last(study)["reason"] == "revoked site"
    authority = study.authority()
    authority.revoke("bad")
    study.publish(authority)
    assert gateway.follow()
    with pytest.raises(httpx.TransportError):
        site.call()
    assert last(study) | {"reason": "certificate revoked"} == last(study)


def test_a_new_server_certificate_is_taken_up_without_a_restart(study, gateway, site):
    study.issue_server(study.authority(), ["127.0.0.1", "new.example"])
    assert gateway.follow()
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
        assert last(study)["reason"] == "wrong role"
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
