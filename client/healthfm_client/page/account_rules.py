"""Whom the site's page knows: the account that runs it, by a one-time link or the page's token."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from typing import Final

from healthfm_core.local_page.page_access import Deed

ACCOUNT: Final = "this account"
"""Whom every session and the token stand for: who can read the site's folder."""
_log = logging.getLogger("healthfm_client.page")


class AccountRules:
    """The rules of a site's page.

    Args:
        token: In a file that the account alone can read; programs show it.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def of_token(self, given: str) -> str | None:
        """Return the account, where the token is the page's."""
        return ACCOUNT if hmac.compare_digest(given.encode(), self._token.encode()) else None

    def may(self, who: str, deed: Deed) -> bool:
        """The account may do everything that its commands do."""
        return True

    def name(self, who: str) -> str:
        """Return what it is called."""
        return who

    def note_refusal(self, details: Mapping[str, str]) -> None:
        """Put a refusal into the page's log, which is of bounded size."""
        _log.warning("refused %r: %s", details["path"], details["reason"])
