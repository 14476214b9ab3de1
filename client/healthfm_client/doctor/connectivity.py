"""The way to the study: name, proxy, TLS by the study's root, clocks, and whether it knows us."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import httpx
from cryptography import x509

from healthfm_client.doctor.findings import DoctorFinding, failed, passed
from healthfm_client.site.site_home import SiteHome
from healthfm_core.errors import ProtocolError, TrustError
from healthfm_core.federation import protocol
from healthfm_core.trust import fingerprint

HELLO: Final = "/v1/healthfm/hello"
PATIENCE_S: Final = 15.0
AHEAD_S: Final = 8.0
"""A site's clock this far ahead of the server's: Flower refuses the site from 10 s on."""
BEHIND_S: Final = 180.0
"""A site's clock this far behind: Flower refuses the site somewhere past 200 s."""
NOTED_S: Final = 3.0


def look(home: SiteHome) -> Iterator[DoctorFinding]:
    """Yield what stands between this machine and the study's server.

    Raises:
        TrustError: There is no kit (HF-830), or the server's certificate is another's (HF-803).
        ProtocolError: The server cannot be reached (HF-408), or answers something else (HF-402).
        ConfigError: ``join.yaml`` cannot be used (HF-102).
    """
    kit, tls = home.kit(), home.tls()
    settings = home.settings_file.is_file() and home.settings()
    proxy = (settings.proxy if settings else None) or os.environ.get("HTTPS_PROXY")
    host = urlsplit(kit.url).hostname or ""
    yield from _name(host, proxy)
    yield from _bypass(proxy)
    with httpx.Client(verify=tls, proxy=proxy, trust_env=False, timeout=PATIENCE_S) as client:
        response, certificate = _hello(client, kit.url, proxy)
    yield passed("tls", f"the study's root vouches for the server, {certificate}")
    yield _clock(response)
    yield _known(response, kit.study, kit.site)
    yield from _release(response)


def _name(host: str, proxy: str | None) -> Iterator[DoctorFinding]:
    if proxy is not None:
        yield passed("name", f"{host}: the proxy looks it up")
        host = urlsplit(proxy).hostname or ""
    try:
        addresses = sorted({str(info[4][0]) for info in socket.getaddrinfo(host, None)})
    except OSError as error:
        do = "Ask your network's administrator for the name; write the proxy as http://HOST:PORT"
        raise _unreachable(host, "its name is not known here", do) from error
    yield passed("proxy" if proxy else "name", f"{host} is {', '.join(addresses)}")


def _bypass(proxy: str | None) -> Iterator[DoctorFinding]:
    exempt = {name.strip() for name in os.environ.get("NO_PROXY", "").split(",")}
    if proxy is not None and os.environ.get("HTTPS_PROXY") and not {"127.0.0.1", "*"} & exempt:
        seen = "HTTPS_PROXY is set and NO_PROXY does not exempt 127.0.0.1"
        do = "join sets it for its own processes; others: export NO_PROXY=127.0.0.1,localhost"
        yield DoctorFinding("proxy", "warn", seen, do)


def _hello(client: httpx.Client, url: str, proxy: str | None) -> tuple[httpx.Response, str]:
    """Ask the server who we are; return its answer and what its certificate is.

    Streamed, so that the connection, and with it the certificate, is still there.
    """
    where = urlsplit(url).netloc
    try:
        with client.stream("GET", url + HELLO) as response:
            secure = response.extensions["network_stream"].get_extra_info("ssl_object")
            certificate = x509.load_der_x509_certificate(secure.getpeercert(True))
            response.read()
    except httpx.ProxyError as error:
        seen = "the proxy does not let us through" if proxy else "a proxy answered"
        do = "Check http://USER:PASSWORD@HOST:PORT in the file that --proxy-file names"
        raise _unreachable(where, seen, do) from error
    except httpx.HTTPError as error:
        raise failure(where, error) from error
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    return response, f"until {until}, {fingerprint.of_certificate(certificate)[:23]}..."


def failure(where: str, error: httpx.HTTPError) -> ProtocolError | TrustError:
    """Return the error behind a failed connection: a certificate's, or the network's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _wrong_certificate(where, cause.verify_message)
        if isinstance(cause, ssl.SSLError):
            return _wrong_certificate(where, f"TLS failed: {cause.reason}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.RemoteProtocolError):
        return TrustError(
            805,
            where=where,
            seen="the server ended the connection without a word once it had seen our certificate, "
            "as it does where the certificate was revoked",
            wanted="an answer",
            do="Ask the coordinator whether this site was revoked",
        )
    if isinstance(error, httpx.TimeoutException):
        do = "Ask your network's administrator to let this machine out to that address"
        return _unreachable(where, f"no answer within {PATIENCE_S:g} s", do)
    do = "Ask the coordinator whether the study is up, and your network's administrator for the way"
    return _unreachable(where, "the connection was refused or broke off", do)


def _clock(response: httpx.Response) -> DoctorFinding:
    try:
        theirs = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return DoctorFinding(
            "clock", "warn", "the server does not tell its time", "compare by hand"
        )
    ahead_s = (datetime.now(UTC) - theirs).total_seconds()
    seen = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if -BEHIND_S < ahead_s < AHEAD_S:
        if abs(ahead_s) < NOTED_S:
            return passed("clock", "the same as the server's")
        return DoctorFinding("clock", "warn", seen, "switch on time synchronisation (NTP)")
    error = ProtocolError(
        409,
        where="clock",
        seen=f"this machine's is {seen}",
        wanted=f"no more than {AHEAD_S:g} s ahead and {BEHIND_S:g} s behind",
    )
    return failed("clock", error)


def _known(response: httpx.Response, study: str, site: str) -> DoctorFinding:
    try:
        answer = response.json() if response.status_code == 200 else {}
        known = (answer.get("study"), answer.get("site")) == (study, site)
    except (ValueError, AttributeError):
        known = False
    if known:
        return passed("study", f"{study} knows this site as {site}")
    error = TrustError(
        811,
        where=f"study {study}",
        seen=f"the server does not know this site (HTTP {response.status_code})",
        wanted=f"it answers {site}",
        do="Ask the coordinator whether this site was revoked",
    )
    return failed("study", error)


def _release(response: httpx.Response) -> Iterator[DoctorFinding]:
    """Yield how the server's release and protocol compare with ours; one too old tells neither."""
    try:
        theirs = response.json() if response.status_code == 200 else {}
        release, spoken = str(theirs["release"]), int(theirs["protocol"])
    except (ValueError, KeyError, TypeError):
        return
    ours = version("healthfm")
    if spoken != protocol.VERSION:
        error = ProtocolError(
            401,
            where="release",
            seen=f"the server speaks protocol version {spoken}, of release {release}",
            wanted=f"version {protocol.VERSION}, of this site's release {ours}",
            do="Install the release of your coordinator",
        )
        yield failed("release", error)
    elif release != ours:
        seen = f"{ours} here, {release} at the server; they speak the same protocol"
        yield DoctorFinding("release", "warn", seen, "install the release of your coordinator")
    else:
        yield passed("release", f"{ours}, the same as the server's")


def _unreachable(where: str, seen: str, do: str) -> ProtocolError:
    return ProtocolError(408, where=where, seen=seen, do=do)


def _wrong_certificate(where: str, seen: str) -> TrustError:
    return TrustError(
        803,
        where=where,
        seen=seen,
        wanted="a certificate of this study's root, for that name, and ours accepted",
        do="If a proxy here opens TLS, have this address exempted; else ask the coordinator",
    )
