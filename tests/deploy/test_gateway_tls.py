"""The public port's TLS context over a change of its files, by handshakes in memory."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress

import pytest

from healthfm_core.trust.kit import make_kit, read_kit, write_for_tls
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import TLS_KEY, SiteKeys
from healthfm_server.deploy.gateway_tls import GatewayTLSContext
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings


@pytest.fixture
def study(tmp_path):
    settings = StudySettings(study="demo", hosts=("127.0.0.1",))
    return StudyFolder.create(tmp_path / "study", settings)


@pytest.fixture
def gateway(study):
    return GatewayTLSContext.of(study.server / "identity.pem", study.server / "trust.pem")


def certified(study, folder):
    """Return a client's context with a certificate of the study's root of now."""
    keys = SiteKeys.create(folder / "keys")
    request = read_request(make_request(keys, folder.name, study.settings.url, ["ehr"]))
    kit = read_kit(make_kit(study.authority(), request, url=study.settings.url, node_id=1))
    roots, certificate = write_for_tls(kit, folder)
    context = ssl.create_default_context(cafile=roots)
    context.load_cert_chain(certificate, folder / "keys" / TLS_KEY)
    return context


def shake(gateway, client):
    """Let both sides speak until the server's handshake is done; raise what it raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    far = gateway.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        with suppress(ssl.SSLWantReadError):
            near.do_handshake()
        with suppress(ssl.SSLWantReadError):
            return far.do_handshake()
    raise AssertionError("the handshake does not come to an end")


def publish(study, authority, gateway):
    """Publish the authority's lists, with a time that differs even on a coarse clock."""
    trust = study.server / "trust.pem"
    before = trust.stat().st_mtime_ns
    study.publish(authority)
    if trust.stat().st_mtime_ns == before:
        os.utime(trust, ns=(before + 1, before + 1))
    assert gateway.follow()


def test_each_of_several_revocations_within_a_second_counts(study, gateway, tmp_path):
    clients = {name: certified(study, tmp_path / name) for name in ("a", "b", "c")}
    for client in clients.values():
        shake(gateway, client)
    for name, client in clients.items():
        authority = study.authority()
        authority.revoke(name)
        publish(study, authority, gateway)
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            shake(gateway, client)


def test_a_root_that_is_taken_out_of_use_is_trusted_no_more(study, gateway, tmp_path):
    old = certified(study, tmp_path / "old")
    authority = study.authority()
    authority.rotate()
    publish(study, authority, gateway)
    shake(gateway, old)
    authority.retire()
    publish(study, authority, gateway)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(gateway, old)


def test_files_that_did_not_change_are_not_read_again(gateway):
    assert not gateway.follow()
