"""What may be changed from a site's page and its API, by the functions that the commands call."""

from __future__ import annotations

import logging
import threading
from typing import Final

from healthfm_client.page.join_wish import JoinWish
from healthfm_client.page.site_view import SiteView
from healthfm_client.runtime.site_control import leave, prepare, refuse_after_leaving, start
from healthfm_client.site.run_approvals import Answer, ApprovalRequest

EFFECTS: Final = {
    "pause": "Every request is refused until you resume. What is being computed just now is "
    "finished, and does not leave.",
    "resume": "Requests are answered again as site.yaml permits.",
    "leave": "Nothing of it runs here any more, and nothing more leaves. Keys, policy and the log "
    "of what left stay. Tell the coordinator to revoke this site.",
    "return": "Requests are answered again as site.yaml permits, and the site's processes start.",
    "start": "The site's two processes begin, and go on trying to reach the study.",
}
"""Deed → what it does, for who confirms it."""
STATES: Final = {"pause": "paused", "resume": "open", "return": "open"}
_log = logging.getLogger("healthfm_client.page")


class SiteActions:
    """Changes of a site; one at a time, each a line of the page's log.

    Args:
        view: The site.
    """

    def __init__(self, view: SiteView) -> None:
        self._view = view
        self._home = view.home
        self._lock = threading.Lock()

    def answer(
        self, run: str, answer: Answer, digest: str, *, further: bool = False
    ) -> ApprovalRequest:
        """Answer a run that asks.

        Args:
            run: Its name or number.
            answer: What the person says.
            digest: Of what the person read.
            further: Whether an approval holds for further runs of the same terms, too.

        Raises:
            PolicyError: There is none (HF-503), or it asks for something else by now (HF-509).
        """
        with self._lock:
            approvals = self._home.approvals()
            asked = approvals.answer(run, answer, further=further, digest=digest or "none")
        _log.info("run %s of %s: %s%s", asked.called, asked.study, answer, " further" * further)
        return asked

    def change(self, deed: str) -> str:
        """Pause, resume, leave or start, and return the site's state.

        Raises:
            HealthFMError: Its processes cannot be started or stopped.
        """
        with self._lock:
            if deed == "leave":
                leave(self._home)
            elif deed in STATES:
                self._home.set_state(STATES[deed])
            if deed in ("start", "return"):
                self._start()
        self._view.processes(now=True)
        _log.info("%s", deed)
        return self._home.state()

    def join(self, wish: JoinWish) -> None:
        """Take a kit in, remember the stores, and start.

        Raises:
            HealthFMError: The kit is another's, or its root's words differ (HF-809); a store cannot
                be used; the processes cannot be started.
        """
        with self._lock:
            wish.take_in(self._home)
            self._start()
        self._view.processes(now=True)
        _log.info("joined %s", self._home.kit().study)

    def _start(self) -> None:
        refuse_after_leaving(self._home)
        for line in prepare(self._home):
            _log.info("%s", line)
        start(self._home)
