"""Forms that decide something: each comes from a page of the same session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from healthfm_client.page.join_wish import JoinWish, stores_nearby
from healthfm_client.page.site_actions import EFFECTS, SiteActions
from healthfm_client.page.site_view import SiteView
from healthfm_core.errors import HealthFMError, TrustError
from healthfm_core.local_page.page_access import PageAccess, Visitor
from healthfm_core.local_page.page_frame import PageFrame
from healthfm_core.local_page.page_templates import part

QUESTIONS: Final = {
    "pause": "Pause this site?",
    "resume": "Resume?",
    "leave": "Leave the study?",
    "return": "Take part again?",
    "start": "Start this site’s processes?",
}
DIFFERS: Final = 809
OTHER_WORDS: Final = (
    "These are not the ten words of this kit's root [HF-809]. Ask the coordinator, by a telephone "
    "number that you knew before, to read them once more; if they stay others, do not join: the "
    "kit was changed on its way."
)
"""Does not name the right ones: whoever saw them here could do without the telephone."""
ANSWERS: Final = ("approve", "further", "deny")
"""What a form about a run may say."""


class DecisionPages:
    """The forms.

    Args:
        view: The site.
        actions: Do it.
        frame: Goes around each page.
    """

    def __init__(self, view: SiteView, actions: SiteActions, frame: PageFrame[str]) -> None:
        self._view = view
        self._actions = actions
        self._frame = frame

    def routes(self, access: PageAccess[str]) -> list[Route]:
        """Return the routes, each for who may order."""

        def order(method: str, path: str, answer: Any) -> Route:
            return Route(path, access.guarded("order", answer), methods=[method])

        deeds = [order("GET", f"/{deed}", self._asking(deed)) for deed in EFFECTS]
        deeds += [order("POST", f"/{deed}", self._doing(deed)) for deed in EFFECTS]
        looks = [order("POST", f"/{page}", self._looking(page)) for page in ("left", "privacy")]
        looks += [order("POST", f"/{page}", self._looking(page)) for page in ("data", "doctor")]
        join = [order("GET", "/join", self.join_form), order("POST", "/join", self.join)]
        return [*deeds, *looks, *join, order("POST", "/runs/{run}", self.answer)]

    async def answer(self, request: Request, visitor: Visitor[str]) -> Response:
        """Approve or deny a run."""
        form = await self._frame.form_of(request, visitor)
        run, said = request.path_params["run"], form.get("answer", "")
        if said not in ANSWERS:
            wanted = "approve, further or deny"
            raise TrustError(831, where="answer", seen=repr(said[:40]), wanted=wanted)
        asked = await run_in_threadpool(
            self._actions.answer,
            run,
            "denied" if said == "deny" else "approved",
            form.get("digest", ""),
            further=said == "further",
        )
        return RedirectResponse(f"{visitor.root}/runs/{part(asked.run)}", 303)

    async def join_form(self, request: Request, visitor: Visitor[str]) -> Response:
        """Ask for the kit, the ten words that the coordinator reads, and the stores."""
        return await self._join(visitor, {})

    async def join(self, request: Request, visitor: Visitor[str]) -> Response:
        """Take the kit in and join."""
        form = await self._frame.form_of(request, visitor)
        try:
            await run_in_threadpool(self._actions.join, JoinWish.of_form(form))
        except HealthFMError as error:
            said = OTHER_WORDS if error.number == DIFFERS else str(error)
            return await self._join(visitor, form, said)
        return RedirectResponse(f"{visitor.root}/", 303)

    async def _join(
        self, visitor: Visitor[str], form: Mapping[str, str], said: str = ""
    ) -> Response:
        home = self._view.home
        values = {"form": form, "said": said, "has_kit": home.has_kit(), "home": home.path}
        chosen = form.get("stores", "").splitlines()
        stores = await run_in_threadpool(stores_nearby, home)
        status = 400 if said else 200
        return self._frame.page(
            "join.html.j2", visitor, status, stores=stores, chosen=chosen, **values
        )

    def _asking(self, deed: str) -> Any:
        async def ask(request: Request, visitor: Visitor[str]) -> Response:
            about = {"question": QUESTIONS[deed], "effect": EFFECTS[deed], "back": "./"}
            return self._frame.page("confirm.html.j2", visitor, verb=deed, **about)

        return ask

    def _doing(self, deed: str) -> Any:
        async def do(request: Request, visitor: Visitor[str]) -> Response:
            await self._frame.form_of(request, visitor)
            await run_in_threadpool(self._actions.change, deed)
            return RedirectResponse(f"{visitor.root}/", 303)

        return do

    def _looking(self, page: str) -> Any:
        starts = {
            "left": self._view.log.start,
            "privacy": self._view.budget.start,
            "data": self._view.check_quality,
            "doctor": self._view.doctor.start,
        }

        async def look(request: Request, visitor: Visitor[str]) -> Response:
            await self._frame.form_of(request, visitor)
            await run_in_threadpool(starts[page])
            return RedirectResponse(f"{visitor.root}/{page}", 303)

        return look
