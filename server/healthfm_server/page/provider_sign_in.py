"""Signing in by the organisation's OpenID Connect provider, where ``study.yaml`` names one.

The authorisation code flow with PKCE, by Authlib. The provider sends the browser back to loopback,
as RFC 8252 has it for programs on a person's machine: over ``ssh -L`` that is this page too.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from healthfm_core.errors import ConfigError, HealthFMError, TrustError
from healthfm_core.local_page.page_app import LocalPage
from healthfm_core.trust import files
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.provider_settings import ProviderSettings
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.page.page_rules import PageUser, ProviderUser

PATH: Final = "/sign-in/provider"
BACK: Final = f"{PATH}/back"
LONGEST_S: Final = 600
"""A person at the provider's form has so long."""
MOST_BEGUN: Final = 64
"""More end the oldest."""
MOST_NAME: Final = 80
TIMEOUT_S: Final = 20.0
SIGNED: Final = frozenset(
    {*("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), *("ES256", "ES384", "ES512", "EdDSA")}
)
"""Signatures that nobody but the provider can make."""


class ProviderSignIn:
    """The two routes of a provider.

    Args:
        study: Has the settings, and the folder that the secret's file is named from.
        settings: Of the provider.
        page: That people sign in to.
        log: Takes who signed in and who was refused.

    Raises:
        ConfigError: The extra ``sign-in`` is not installed (HF-108).
        TrustError: The file of the client's secret cannot be used (HF-802).
    """

    def __init__(
        self,
        study: StudyFolder,
        settings: ProviderSettings,
        page: LocalPage[PageUser],
        log: AuditLog,
    ) -> None:
        if find_spec("authlib") is None:
            raise ConfigError(
                108,
                where="sign_in in study.yaml",
                seen="the package authlib is not installed",
                wanted="the extra that has it",
                do="Run: pip install 'healthfm[sign-in]'",
            )
        from authlib.integrations.starlette_client import OAuth  # here: an extra brings it

        self._settings, self._page, self._log = settings, page, log
        self._provider = OAuth(cache=_Begun()).register(
            "provider",
            client_id=settings.client_id,
            client_secret=_secret(study, settings),
            server_metadata_url=f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(settings.scopes),
                "code_challenge_method": "S256",
                "timeout": TIMEOUT_S,
                "trust_env": urlsplit(settings.issuer).scheme == "https",
                **({} if settings.client_secret_file else {"token_endpoint_auth_method": "none"}),
            },
        )

    def routes(self) -> list[Mount]:
        """Return the routes, for who has not signed in."""
        cookie = Middleware(
            SessionMiddleware,
            secret_key=secrets.token_urlsafe(32),
            session_cookie=f"healthfm-sign-in-{secrets.token_hex(8)}",
            max_age=LONGEST_S,
            path=PATH,
            same_site="lax",  # the provider's page sends the browser back
        )
        begin, back = Route("/", self.begin), Route("/back", self.back)
        return [Mount(PATH, routes=[begin, back], middleware=[cookie])]

    async def begin(self, request: Request) -> Response:
        """Send a browser to the provider."""
        try:
            await self._check()
            here = f"http://{request.headers['host']}{BACK}"
            answer: Response = await self._provider.authorize_redirect(request, here)
        except _failures() as error:
            return await self._not_signed_in(request, _unusable(self._settings, error))
        return answer

    async def back(self, request: Request) -> Response:
        """Begin a session for whom the provider sends back, if they have a role."""
        if "error" in request.query_params:
            return await self._not_signed_in(request, _denied(self._settings, request))
        try:
            claims = await self._claims(request)
        except _failures() as error:
            return await self._not_signed_in(request, _unusable(self._settings, error))
        name, role = _name(claims, self._settings), self._settings.role_of(claims)
        if role is None:
            return await self._not_signed_in(request, _no_role(name, self._settings), 403)
        user = ProviderUser(f"oidc:{name}", role)
        cookie, session = self._page.sessions.begin_for(user)
        about = {"user": user.name, "role": role, "subject": str(claims["sub"])[:MOST_NAME]}
        about["issuer"] = self._settings.issuer
        await run_in_threadpool(self._log.note, "signed in by the provider", about)
        # A page between: the session's cookie is not sent where another site led the browser.
        shown = self._page.frame.page(
            "signed_in.html.j2", None, name=user.name, role=role, root=session.root
        )
        return self._page.with_cookie(shown, cookie, session)

    async def _claims(self, request: Request) -> Mapping[str, Any]:
        """Return what the provider says of a person, of the ID token and, where needed, UserInfo.

        Raises:
            TrustError: It is of another person, or of nobody (HF-834).
            Exception: One of `_failures`, where it is not proven.
        """
        await self._check()
        token = await self._provider.authorize_access_token(request)
        found = token.get("userinfo")
        if not found:
            raise _wrong(self._settings, "it sent no ID token")
        claims = dict(found)
        if self._settings.claim not in claims:
            more = await self._provider.userinfo(token=token)
            if more.get("sub") != claims["sub"]:
                raise _wrong(self._settings, "UserInfo is of another person than the ID token")
            claims = {**more, **claims}
        return claims

    async def _check(self) -> None:
        """Refuse metadata that is another issuer's, or of signatures that prove nothing.

        Raises:
            TrustError: It is so (HF-834).
        """
        metadata = await self._provider.load_server_metadata()
        if metadata.get("issuer") != self._settings.issuer:
            seen = f"it calls itself {str(metadata.get('issuer'))[:200]}"
            raise _wrong(self._settings, seen)
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        usable = [one for one in offered if one in SIGNED]
        if not usable:
            raise _wrong(self._settings, f"it signs by {', '.join(map(str, offered))[:200]} alone")
        metadata["id_token_signing_alg_values_supported"] = usable

    async def _not_signed_in(
        self, request: Request, error: HealthFMError, status: int = 401
    ) -> Response:
        details = {"path": PATH, "reason": error.seen or "", "token": ""}
        await run_in_threadpool(self._log.note_refusal, "page refused", details)
        return self._page.sign_in_page(status, str(error))


class _Begun:
    """What is kept of who went to the provider: nonce and PKCE's verifier, by state."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, str]] = {}

    async def get(self, key: str) -> str | None:
        until_s, value = self._kept.get(key, (0.0, ""))
        return value if time.monotonic() < until_s else None

    async def set(self, key: str, value: str, expires: int | None = None) -> None:
        while len(self._kept) >= MOST_BEGUN:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = (time.monotonic() + LONGEST_S, value)

    async def delete(self, key: str) -> None:
        self._kept.pop(key, None)


def _failures() -> tuple[type[Exception], ...]:
    """Return what is raised where a provider is not there or what it says proves nothing.

    Among them what Python raises of an answer that is no JSON, or has no such key.
    """
    from authlib.common.errors import AuthlibBaseError
    from httpx2 import HTTPError, InvalidURL
    from joserfc.errors import JoseError

    lost = (AuthlibBaseError, JoseError, HTTPError, InvalidURL, TrustError)
    return (*lost, KeyError, RuntimeError, TypeError, ValueError)


def _secret(study: StudyFolder, settings: ProviderSettings) -> str | None:
    if settings.client_secret_file is None:
        return None
    file = study.path / settings.client_secret_file
    try:
        return files.read_private(file, "the client's secret at the provider").decode().strip()
    except TrustError as error:  # no key of this study: no backup has it
        raise TrustError(
            802,
            where=error.where,
            seen=error.seen,
            wanted="the secret that the provider gave for this client, in a file of mode 600",
            do="Write it there, or leave client_secret_file out for a public client",
        ) from error


def _name(claims: Mapping[str, Any], settings: ProviderSettings) -> str:
    """Return what a person is called: printable, and no longer than a line has room for."""
    given = str(claims.get(settings.name_claim) or claims["sub"])
    return "".join(c for c in given if c.isprintable())[:MOST_NAME]


def _unusable(settings: ProviderSettings, error: Exception) -> HealthFMError:
    if isinstance(error, HealthFMError):
        return error
    return _wrong(settings, f"{type(error).__name__}: {error}"[:300])


def _wrong(settings: ProviderSettings, seen: str) -> TrustError:
    return TrustError(834, where=f"provider {settings.issuer}", seen=seen)


def _denied(settings: ProviderSettings, request: Request) -> TrustError:
    asked = request.query_params
    told = asked.get("error_description") or asked["error"]
    return _wrong(settings, f"it did not sign you in: {told[:200]}")


def _no_role(name: str, settings: ProviderSettings) -> TrustError:
    return TrustError(
        835,
        where=f"account {name}",
        seen=f"its claim {settings.claim} has no value that sign_in names",
    )
