"""The site's certificate, made anew before it ends or when the study's root has changed."""

from __future__ import annotations

import logging
import ssl
import time
from datetime import datetime, timedelta
from typing import Final

import httpx

from healthfm_client.site.site_folder import SiteFolder
from healthfm_core.errors import HealthFMError
from healthfm_core.trust import files, fingerprint
from healthfm_core.trust.certificates import RENEWED_DAYS, now_utc
from healthfm_core.trust.kit import Kit, install_kit
from healthfm_core.trust.site_keys import SiteKeys

ROUTE: Final = "/v1/healthfm/renewal"
HELLO: Final = "/v1/healthfm/hello"
PATIENCE_S: Final = 30.0
RECHECK_S: Final = 10.0
"""Before a kit that is asked for is asked for again: the coordinator signs it meanwhile."""
CHECK_S: Final = 600.0

_log = logging.getLogger(__name__)


def renews_from(kit: Kit) -> datetime:
    """Return from when on a site asks for a new certificate by itself."""
    return kit.certificate.not_valid_after_utc - timedelta(days=RENEWED_DAYS)


def renew(site: SiteFolder, tls: ssl.SSLContext, proxy: str | None) -> bool:
    """Ask for a new certificate and take it in; say whether one came.

    Raises:
        HealthFMError: The kit is not this study's or not for this site's keys (HF-80x).
        httpx.HTTPError: The coordinator cannot be reached, or does not do it.
    """
    kit = site.kit()
    request = files.read(site.path / "request.zip", "this site's request")
    with httpx.Client(verify=tls, proxy=proxy, trust_env=False, timeout=PATIENCE_S) as client:
        answer = client.post(kit.url + ROUTE, content=request)
    answer.raise_for_status()
    if answer.status_code != httpx.codes.OK:
        return False
    install_kit(answer.content, site.study, SiteKeys.load(site.keys))
    return True


def root_has_changed(site: SiteFolder, tls: ssl.SSLContext, proxy: str | None) -> bool:
    """Ask the study which root signs now; say whether it is another than the kit's.

    The question shows this site's certificate, by which the study knows what root it has. A study
    of 0.8 or before does not say.

    Raises:
        httpx.HTTPError: The coordinator cannot be reached, or refuses.
        ValueError: It answers something else.
    """
    kit = site.kit()
    with httpx.Client(verify=tls, proxy=proxy, trust_env=False, timeout=PATIENCE_S) as client:
        answer = client.get(kit.url + HELLO)
    answer.raise_for_status()
    root = dict(answer.json()).get("root", kit.root_fingerprint)
    return not fingerprint.same(str(root), kit.root_fingerprint)


def look(site: SiteFolder, tls: ssl.SSLContext, proxy: str | None) -> float:
    """Renew the certificate where it is time; return the seconds until the next look.

    The new one is shown from the next connection on, which is that look's.
    """
    try:
        if now_utc() < renews_from(site.kit()) and not root_has_changed(site, tls, proxy):
            return CHECK_S
        if not renew(site, tls, proxy):
            return RECHECK_S
        site.show_certificate(tls)
    except (httpx.HTTPError, HealthFMError, OSError, ValueError, TypeError) as error:
        _log.warning("the certificate is not renewed, and will be tried again: %s", error)
        return CHECK_S
    kit = site.kit()
    until = kit.certificate.not_valid_after_utc
    _log.info("the certificate is new, until %s; the root in words: %s", until, kit.root_words)
    return RECHECK_S


def keep_valid(site: SiteFolder, tls: ssl.SSLContext, proxy: str | None) -> None:
    """Look for ever."""
    while True:
        time.sleep(look(site, tls, proxy))
