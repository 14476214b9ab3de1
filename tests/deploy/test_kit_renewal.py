"""A site's certificate is renewed over the public port, for the keys it enrolled with."""

from __future__ import annotations

import ssl
from datetime import timedelta

import httpx
import pytest

from healthfm_client.runtime import certificate_renewal
from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import TrustError
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.kit import install_kit, make_kit
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys
from healthfm_server.deploy.kit_renewal import Renewals
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from tests.deploy.serving import PATIENCE_S, free_port, gateway_served


@pytest.fixture
def study(tmp_path):
    """A study whose public port is open."""
    settings = StudySettings(
        study="demo", hosts=("127.0.0.1",), port=free_port(), superlink_port=free_port()
    )
    study = StudyFolder.create(tmp_path / "study", settings)
    with gateway_served(study, study.audit("gateway")):
        yield study


def enrolled(study, folder, days):
    """Return a site's folder, with a certificate that ends in so many days."""
    home = SiteHome(folder)
    keys, authority = SiteKeys.create(home.keys), study.authority()
    home.request.write_bytes(make_request(keys, folder.name, study.settings.url, ["ehr"]))
    request = read_request(home.request.read_bytes())
    study.sites.admit(request, node_id=days)
    kit = make_kit(authority, request, url=study.settings.url, node_id=days, days=days)
    install_kit(kit, home.study, keys, root_fingerprint=authority.fingerprint)
    return home


def days_left(home):
    return (home.kit().certificate.not_valid_after_utc - now_utc()).days


def test_a_certificate_that_ends_soon_is_new_after_two_looks(study, tmp_path):
    home = enrolled(study, tmp_path / "north", days=40)
    tls, before = home.tls(), home.kit()
    assert certificate_renewal.look(home, tls, None) == certificate_renewal.RECHECK_S
    assert days_left(home) < 41
    Renewals(study).sign(study.audit("reconciler"))
    assert certificate_renewal.look(home, tls, None) == certificate_renewal.RECHECK_S
    assert days_left(home) > 390
    assert certificate_renewal.look(home, tls, None) == certificate_renewal.CHECK_S
    after = home.kit()
    assert after.certificate.public_key() == before.certificate.public_key()
    assert (after.site, after.node_id, after.root) == (before.site, before.node_id, before.root)
    with httpx.Client(verify=tls, trust_env=False, timeout=PATIENCE_S) as client:
        assert client.get(f"{after.url}/v1/healthfm/hello").json()["site"] == "north"
    assert study.audit("test").rows()[-1]["event"] == "certificate renewed"


def test_a_certificate_with_a_year_to_go_is_left_alone(study, tmp_path):
    home = enrolled(study, tmp_path / "north", days=397)
    assert certificate_renewal.look(home, home.tls(), None) == certificate_renewal.CHECK_S
    assert not certificate_renewal.renew(home, home.tls(), None)  # who asks all the same gets none
    Renewals(study).sign(study.audit("reconciler"))
    assert "it has a certificate until" in study.audit("test").rows()[-1]["reason"]
    assert not certificate_renewal.renew(home, home.tls(), None)
    issued = [row for row in study.authority().issued() if row.who == "north"]
    assert len(issued) == 1


def test_another_keys_request_is_refused_and_its_sentence_reaches_the_log(study, tmp_path, caplog):
    home = enrolled(study, tmp_path / "north", days=40)
    other = SiteKeys.create(tmp_path / "other")
    home.request.write_bytes(make_request(other, "north", study.settings.url, ["ehr"]))
    assert certificate_renewal.look(home, home.tls(), None) == certificate_renewal.CHECK_S
    assert "not renewed" in caplog.text
    assert not list((study.path / "renewals").glob("*"))


def test_a_revoked_site_gets_no_certificate(study, tmp_path):
    home = enrolled(study, tmp_path / "north", days=40)
    request = home.request.read_bytes()
    renewals = Renewals(study)
    assert renewals.ask(study.sites.site("north"), request) is None
    study.sites.revoke("north")
    renewals.sign(study.audit("reconciler"))
    assert study.audit("test").rows()[-1]["event"] == "certificate not renewed"
    assert renewals.ask(study.sites.site("north"), request) is None
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        certificate_renewal.renew(home, home.tls(), None)


def test_last_years_kit_is_not_handed_out_again(study, tmp_path):
    home = enrolled(study, tmp_path / "north", days=40)
    renewals, site = Renewals(study), study.sites.site("north")
    request, log = home.request.read_bytes(), study.audit("reconciler")
    assert renewals.ask(site, request) is None
    renewals.sign(log)
    assert renewals.ask(site, request) is not None
    next_year = now_utc() + timedelta(days=360)
    assert renewals.ask(site, request, next_year) is None
    renewals.sign(log, next_year)
    assert renewals.ask(site, request, next_year) is not None


def test_the_public_port_asks_for_a_certificate(study):
    tls = ssl.create_default_context(cafile=study.server / "trust.pem")
    with httpx.Client(verify=tls, trust_env=False, timeout=PATIENCE_S) as client:
        assert client.post(f"{study.settings.url}/v1/healthfm/renewal").status_code == 401


def test_a_request_that_is_none_is_refused(study, tmp_path):
    enrolled(study, tmp_path / "north", days=40)
    with pytest.raises(TrustError, match="HF-80"):
        Renewals(study).ask(study.sites.site("north"), b"no request")
