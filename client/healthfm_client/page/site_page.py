"""The site's page: what it shows and changes, to the account that runs it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from healthfm_client.page.account_rules import ACCOUNT, AccountRules
from healthfm_client.page.decision_pages import DecisionPages
from healthfm_client.page.site_actions import SiteActions
from healthfm_client.page.site_api import SiteApi
from healthfm_client.page.site_pages import SitePages
from healthfm_client.page.site_view import SiteView
from healthfm_client.site.site_home import SiteHome
from healthfm_core.local_page.page_app import LocalPage, PageParts
from healthfm_core.local_page.page_sessions import PageSessions

STYLE: Final = Path(__file__).parent / "static" / "site.css"
MISSING: Final = frozenset({503, 510})
"""Codes of what is not there: a run, a line of the log."""


class SitePage:
    """The page of one site.

    Args:
        home: The site, which has keys.

    Attributes:
        token: What programs of the same account show.
        sessions: Of the browsers.
        view: The site as it is shown.
    """

    def __init__(self, home: SiteHome) -> None:
        self.token = secrets.token_urlsafe(32)
        self.view = SiteView(home)
        rules = AccountRules(self.token)
        self.sessions = PageSessions(ACCOUNT)
        enrolment = home.enrolment()
        title = "HealthFM" if enrolment is None else enrolment.site
        parts = PageParts(title, "healthfm_client.page", (STYLE,), MISSING)
        self._page = LocalPage(parts, rules, self.sessions)
        actions = SiteActions(self.view)
        self.pages = SitePages(self.view, self._page.frame)
        self._decisions = DecisionPages(self.view, actions, self._page.frame)
        self._api = SiteApi(self.view, actions, self.sessions.link_secret)

    def app(self) -> Starlette:
        """Return the application, for loopback."""
        access = self._page.access
        pages = [*self._decisions.routes(access), *self.pages.routes(access)]
        return self._page.app(self._api.routes(access), pages)
