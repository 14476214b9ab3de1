"""A change of the root: sites take it over their own connection, and none is cut off unawares."""

from __future__ import annotations

import time

import httpx

from healthfm_client.runtime import certificate_renewal
from healthfm_core.trust.certificates import common_name
from healthfm_server.__main__ import main
from healthfm_server.deploy.kit_renewal import Renewals
from healthfm_server.deploy.root_rotation import root_rotation
from healthfm_server.deploy.study_status import status_lines, study_status
from tests.deploy.serving import PATIENCE_S
from tests.deploy.test_kit_renewal import enrolled, study

__all__ = ["study"]


def rotate(study, *words):
    return main(["rotate", *words, "--study", str(study.path)])


def looks(study, home, tls):
    """Let a site look as its node does, and the reconciler sign, until it shows the new root.

    The gateway takes a certificate of the new root once it has read its files again.
    """
    until = time.monotonic() + PATIENCE_S
    while home.kit().site in root_rotation(study).waiting:
        assert time.monotonic() < until, "the site goes on asking"
        certificate_renewal.look(home, tls, None)
        Renewals(study).sign(study.audit("reconciler"))


def hello(home, tls):
    with httpx.Client(verify=tls, trust_env=False, timeout=PATIENCE_S) as client:
        return client.get(f"{home.kit().url}/v1/healthfm/hello")


def shut_out(home):
    """Wait until the gateway has read the new roots and a site's old certificate is refused."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            hello(home, home.tls())
        except httpx.TransportError:
            return
        time.sleep(0.05)
    raise AssertionError("still served")


def test_a_new_root_reaches_the_sites_without_a_kit_by_hand(study, tmp_path, capsys):
    homes = [enrolled(study, tmp_path / name, days=300 + i) for i, name in enumerate(("a", "b"))]
    contexts = [home.tls() for home in homes]
    old = homes[0].kit()
    assert root_rotation(study) is None
    assert rotate(study, "root") == 0
    words = study.authority().words
    assert words in capsys.readouterr().out
    assert root_rotation(study).waiting == ("a", "b")
    looks(study, homes[0], contexts[0])
    new = homes[0].kit()
    assert (new.root_words, common_name(new.root)) == (words, "root 2")
    assert new.certificate.public_key() == old.certificate.public_key()
    assert root_rotation(study).waiting == ("b",)

    assert rotate(study, "retire") == 9
    said = capsys.readouterr().err
    assert "HF-839" in said
    assert "1 of 2 sites would be cut off" in said
    assert said.split("root 2: ")[1].startswith("b;")
    assert len(study.trusted_roots()) == 2, "nothing was changed"
    shown = list(status_lines(study_status(study)))
    assert "the root is being changed: 1 of 2 sites have the new root (root 2); not yet: b" in shown

    looks(study, homes[1], contexts[1])
    assert rotate(study, "retire") == 0
    assert len(study.trusted_roots()) == 1
    assert study_status(study)["rotation"] is None
    for home, tls in zip(homes, contexts, strict=True):
        assert hello(home, tls).json()["site"] == home.kit().site


def test_who_forces_it_cuts_off_the_sites_that_are_named(study, tmp_path, capsys):
    home = enrolled(study, tmp_path / "a", days=300)
    assert rotate(study, "root") == 0
    assert hello(home, home.tls()).json()["root"] == study.root_fingerprint()
    assert rotate(study, "retire") == 9, "a call under the old root is no proof of the new one"
    capsys.readouterr()
    assert rotate(study, "retire", "--force") == 0
    assert "cut off: site a" in capsys.readouterr().out
    shut_out(home)


def test_a_revoked_site_keeps_nobody_waiting(study, tmp_path):
    enrolled(study, tmp_path / "a", days=300)
    assert rotate(study, "root") == 0
    study.sites.revoke("a")
    assert root_rotation(study).waiting == ()
    assert rotate(study, "retire") == 0


def test_a_kit_of_the_root_before_is_not_handed_out(study, tmp_path):
    home = enrolled(study, tmp_path / "a", days=40)
    tls, log = home.tls(), study.audit("reconciler")
    assert not certificate_renewal.renew(home, tls, None)
    Renewals(study).sign(log)
    assert rotate(study, "root") == 0
    assert not certificate_renewal.renew(home, tls, None), "the kit that waits is of root 1"
    Renewals(study).sign(log)
    assert certificate_renewal.renew(home, tls, None)
    assert common_name(home.kit().root) == "root 2"


def test_a_coordinator_that_does_not_name_its_root_changes_nothing(study, tmp_path, monkeypatch):
    home = enrolled(study, tmp_path / "a", days=300)
    asked = httpx.Client.get

    def of_0_8(client, url):
        answer = asked(client, url)
        names = {k: v for k, v in answer.json().items() if k != "root"}
        return httpx.Response(200, json=names, request=answer.request)

    monkeypatch.setattr(httpx.Client, "get", of_0_8)
    assert rotate(study, "root") == 0
    assert certificate_renewal.look(home, home.tls(), None) == certificate_renewal.CHECK_S
    assert common_name(home.kit().root) == "root 1"


def test_an_unreachable_coordinator_is_asked_again(study, tmp_path, monkeypatch, caplog):
    home = enrolled(study, tmp_path / "a", days=300)
    monkeypatch.setattr(
        httpx.Client, "get", lambda *_: (_ for _ in ()).throw(httpx.ConnectError("x"))
    )
    assert certificate_renewal.look(home, home.tls(), None) == certificate_renewal.CHECK_S
    assert "will be tried again" in caplog.text
