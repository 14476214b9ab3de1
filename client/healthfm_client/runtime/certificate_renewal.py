"""The site's certificate, made anew before it ends, for the keys that the site has."""

from __future__ import annotations

import logging
import ssl
import time
from datetime import datetime, timedelta
from typing import Final

import httpx

from healthfm_client.site.site_folder import SiteFolder
from healthfm_core.errors import HealthFMError
from healthfm_core.trust import files
from healthfm_core.trust.certificates import RENEWED_DAYS, now_utc
from healthfm_core.trust.kit import Kit, install_kit
from healthfm_core.trust.site_keys import SiteKeys

ROUTE: Final = "/v1/healthfm/renewal"
PATIENCE_S: Final = 30.0
RECHECK_S: Final = 60.0
"""Before a kit that is asked for is asked for again: the coordinator signs it meanwhile."""
CHECK_S: Final = 3600.0

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


def look(site: SiteFolder, tls: ssl.SSLContext, proxy: str | None) -> float:
    """Renew the certificate where it is time; return the seconds until the next look.

    The new one is shown from the next connection on.
    """
    if now_utc() < renews_from(site.kit()):
        return CHECK_S
    try:
        if not renew(site, tls, proxy):
            return RECHECK_S
        site.show_certificate(tls)
    except (httpx.HTTPError, HealthFMError, OSError) as error:
        _log.warning("the certificate is not renewed, and will be tried again: %s", error)
        return CHECK_S
    _log.info("the certificate is new, until %s", site.kit().certificate.not_valid_after_utc)
    return CHECK_S


def keep_valid(site: SiteFolder, tls: ssl.SSLContext, proxy: str | None) -> None:
    """Look for ever."""
    while True:
        time.sleep(look(site, tls, proxy))
