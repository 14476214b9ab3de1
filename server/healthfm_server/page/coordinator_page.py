"""The coordinator's page: what of a study it shows and changes, and to whom."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from healthfm_core.errors import TrustError
from healthfm_core.local_page.page_app import LocalPage, PageParts
from healthfm_core.local_page.page_sessions import PageSessions
from healthfm_server.deploy.access_tokens import AccessToken
from healthfm_server.deploy.study_folder import LOCAL, StudyFolder
from healthfm_server.page.action_pages import ActionPages
from healthfm_server.page.model_pages import ModelPages
from healthfm_server.page.page_rules import PageUser, RoleRules
from healthfm_server.page.page_views import PageViews
from healthfm_server.page.provider_sign_in import ProviderSignIn
from healthfm_server.page.report_pages import ReportPages
from healthfm_server.page.study_actions import StudyActions
from healthfm_server.page.study_api import StudyApi
from healthfm_server.page.study_view import StudyView

STYLE: Final = Path(__file__).parent / "static" / "coordinator.css"
MISSING: Final = frozenset({722, 733, 811})
"""Codes of what is not there: a run, an alias, a site."""


class CoordinatorPage:
    """The page of one study.

    Args:
        study: The study.

    Raises:
        ConfigError: People are to sign in by a provider, and its extra is not installed (HF-108).
        TrustError: This machine's token was revoked (HF-821), or the file of the client's secret at
            the provider cannot be used (HF-802).
    """

    def __init__(self, study: StudyFolder) -> None:
        self.study = study
        self.view = StudyView(study)
        log = study.audit("page")
        rules = RoleRules(study.tokens, log)
        self.sessions: PageSessions[PageUser] = PageSessions(
            own_token(study), rules.of_token, rules.holds
        )
        provider = study.settings.sign_in
        about = {"provider": "" if provider is None else provider.label}
        parts = PageParts(study.settings.study, "healthfm_server.page", (STYLE,), MISSING, about)
        self._page = LocalPage(parts, rules, self.sessions)
        self._ways_in = (
            [] if provider is None else ProviderSignIn(study, provider, self._page, log).routes()
        )
        actions = StudyActions(study, log)
        self.actions = ActionPages(study, actions, self._page.frame)
        self.models = ModelPages(actions, self._page.frame)
        self.views = PageViews(self.view, self._page.frame)
        self.reports = ReportPages(study)

    def app(self) -> Starlette:
        """Return the application, for loopback."""
        access = self._page.access
        shown = (self.views, self.actions, self.models, self.reports)
        asked = (StudyApi(self.view), self.actions, self.models, self.reports)
        api = [route for part in asked for route in part.api_routes(access)]
        pages = [route for part in shown for route in part.routes(access)]
        return self._page.app(api, pages, self.reports.close, self._ways_in)


def own_token(study: StudyFolder) -> AccessToken:
    """Return the entry of this machine's token, for which a one-time link stands.

    Raises:
        TrustError: It was revoked (HF-821).
    """
    token = study.tokens.of(study.control_token())
    if token is None:
        raise TrustError(
            821,
            where=f"token {LOCAL}",
            seen="it was revoked",
            do="Restore tokens.json from a backup: the study's own processes need it too",
        )
    return token
