"""Forms that change something: each is asked for on a page of its own and confirmed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from healthfm_core.errors import HealthFMError, TrustError
from healthfm_core.local_page.page_access import PageAccess, Visitor
from healthfm_core.local_page.page_frame import PageFrame
from healthfm_core.local_page.page_templates import part
from healthfm_core.trust.authority import unknown_site
from healthfm_server.deploy.admission_terms import AdmissionTerms
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.page.json_fields import fields_of
from healthfm_server.page.page_rules import PageUser
from healthfm_server.page.study_actions import (
    EFFECTS,
    RUN_FIELDS,
    RUN_WANTED,
    StudyActions,
    wish_of,
    wish_of_fields,
)

DIFFERS: Final = 809
OTHER_WORDS: Final = (
    "These are not the ten words of this request [HF-809]. Ask the site to read them once more; if "
    "they stay others, do not admit it: the request was changed on its way."
)
"""Does not name the right ones: whoever saw them here could do without the telephone."""


ADMIT_FIELDS: Final[Mapping[str, type]] = {
    "name": str,
    "words": str,
    "most_subjects": int,
    "renew": bool,
}
ADMIT_REQUIRED: Final = ("name", "words")
ADMIT_WANTED: Final = (
    "name and words are text, most_subjects is a number of people, renew is true or false"
)


class _Verb(Convertor[str]):
    """Reads pause, resume or stop in an address, and nothing else."""

    regex = "|".join(sorted(EFFECTS))

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("verb", _Verb())


class ActionPages:
    """The pages and calls that change something.

    Args:
        study: The study.
        actions: Do it.
        frame: Goes around each page.
    """

    def __init__(
        self, study: StudyFolder, actions: StudyActions, frame: PageFrame[PageUser]
    ) -> None:
        self._study = study
        self._actions = actions
        self._frame = frame

    def routes(self, access: PageAccess[PageUser]) -> list[Route]:
        """Return the routes, each for who may order."""

        def order(method: str, path: str, answer: Any) -> Route:
            return Route(path, access.guarded("order", answer), methods=[method])

        verbs = "{action:verb}"
        return [
            order("GET", "/launch", self.launch_form),
            order("POST", "/launch", self.launch),
            order("GET", f"/runs/{{name}}/{verbs}", self.change_form),
            order("POST", f"/runs/{{name}}/{verbs}", self.change),
            order("GET", "/sites/{name}/revoke", self.revoke_form),
            order("POST", "/sites/{name}/revoke", self.revoke),
            order("GET", "/requests/{file}", self.admit_form),
            order("POST", "/requests/{file}", self.admit),
            order("GET", "/kits/{name}", self.kit),
        ]

    def api_routes(self, access: PageAccess[PageUser]) -> list[Route]:
        """Return the routes for programs, each for who may order."""
        changes = {
            "/runs": self.api_launch,
            "/runs/{name}/{action:verb}": self.api_change,
            "/sites/{name}/revoke": self.api_revoke,
            "/requests/{file}/admit": self.api_admit,
        }
        return access.changes(changes)

    async def launch_form(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Ask what is to be run, and by which sites; as a dry run had it, where one is named."""
        like = request.query_params.get("like")
        if like is None:
            return self._launch(visitor, {}, ())
        about = (await run_in_threadpool(RunOrder.find, self._study.runs, like)).about()
        form = {"settings": "\n".join(about.get("settings", ()))}
        return self._launch(visitor, form, about["sites"])

    async def launch(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Order a run."""
        form = dict(await self._frame.form_of(request, visitor))
        wish = wish_of(form)
        try:
            order = await run_in_threadpool(self._actions.order, wish, visitor.name)
        except HealthFMError as error:
            return self._launch(visitor, form, wish.sites, str(error))
        return RedirectResponse(f"{visitor.root}/runs/{part(order.name)}", 303)

    async def change_form(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Ask whether a run is to be paused, resumed or stopped."""
        name, action = request.path_params["name"], request.path_params["action"]
        return self._confirm(
            visitor,
            f"{action.capitalize()} run {name}?",
            EFFECTS[action],
            action,
            f"runs/{part(name)}",
        )

    async def change(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Pause, resume or stop a run."""
        await self._frame.form_of(request, visitor)
        name, action = request.path_params["name"], request.path_params["action"]
        await run_in_threadpool(self._actions.change, name, action, visitor.name)
        return RedirectResponse(f"{visitor.root}/runs/{part(name)}", 303)

    async def revoke_form(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Ask whether a site is to be shut out."""
        name = request.path_params["name"]
        if name not in self._study.sites.sites():
            raise unknown_site(name)
        effect = "Its next call is refused. To be let in again, it needs a new kit."
        return self._confirm(visitor, f"Revoke site {name}?", effect, "revoke", "./")

    async def revoke(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Shut a site out."""
        await self._frame.form_of(request, visitor)
        name = request.path_params["name"]
        await run_in_threadpool(self._actions.revoke, name, visitor.name)
        return RedirectResponse(f"{visitor.root}/", 303)

    async def admit_form(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Show who asks to join, and ask for the ten words that the site reads."""
        return await self._admit(request, visitor)

    async def admit(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Admit a site whose ten words were the right ones, and offer its kit."""
        form = await self._frame.form_of(request, visitor)
        file = request.path_params["file"]
        try:
            terms = AdmissionTerms(
                name=form.get("name", "").strip(),
                compared=form.get("words", "").strip(),
                most_subjects=_count(form.get("most_subjects", "").strip()),
                renew=form.get("renew", "") == "yes",
            )
            await run_in_threadpool(self._actions.admit, file, terms, visitor.name)
        except HealthFMError as error:
            said = OTHER_WORDS if error.number == DIFFERS else str(error)
            return await self._admit(request, visitor, said)
        words = self._study.authority().words
        return self._frame.page("admitted.html.j2", visitor, site=terms.name, words=words)

    async def kit(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer a site's kit."""
        kit = self._actions.kit(request.path_params["name"])
        if not kit.is_file():
            raise unknown_site(request.path_params["name"])
        return FileResponse(kit, media_type="application/zip", filename=kit.name)

    async def api_launch(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Order a run for a program."""
        wish = wish_of_fields(await fields_of(request, "run", RUN_FIELDS, RUN_WANTED))
        order = await run_in_threadpool(self._actions.order, wish, visitor.name)
        return JSONResponse({"run": order.name, "wanted": order.wanted}, 201)

    async def api_change(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Pause, resume or stop a run for a program."""
        name, action = request.path_params["name"], request.path_params["action"]
        order = await run_in_threadpool(self._actions.change, name, action, visitor.name)
        return JSONResponse({"run": order.name, "wanted": order.wanted})

    async def api_revoke(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Shut a site out for a program."""
        name = request.path_params["name"]
        await run_in_threadpool(self._actions.revoke, name, visitor.name)
        return JSONResponse({"site": name, "state": "revoked"})

    async def api_admit(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Admit a site for a program, by the ten words that a person heard."""
        file = request.path_params["file"]
        given = await fields_of(request, "admission", ADMIT_FIELDS, ADMIT_WANTED, ADMIT_REQUIRED)
        terms = AdmissionTerms(
            name=given["name"],
            compared=given["words"],
            most_subjects=_positive(given.get("most_subjects")),
            renew=given.get("renew", False),
        )
        try:
            kit = await run_in_threadpool(self._actions.admit, file, terms, visitor.name)
        except HealthFMError as error:
            if error.number != DIFFERS:
                raise
            raise TrustError(  # the words of the error itself would do without the telephone
                DIFFERS,
                where=f"request {file[:80]!r}",
                seen="its ten words are others",
                wanted="those that the site reads to you",
                do="Ask the site to read them once more; if they stay others, do not admit it",
            ) from None
        return JSONResponse({"site": terms.name, "state": "admitted", "kit": str(kit)}, 201)

    def _launch(
        self,
        visitor: Visitor[PageUser],
        form: dict[str, str],
        chosen: Sequence[str],
        said: str = "",
    ) -> Response:
        sites = [site for _, site in sorted(self._study.sites.sites().items()) if not site.revoked]
        values = {"form": form, "sites": sites, "chosen": chosen, "said": said}
        return self._frame.page("launch.html.j2", visitor, 400 if said else 200, **values)

    def _confirm(
        self, visitor: Visitor[PageUser], question: str, effect: str, verb: str, back: str
    ) -> Response:
        values = {"question": question, "effect": effect, "verb": verb, "back": back}
        return self._frame.page("confirm.html.j2", visitor, **values)

    async def _admit(
        self, request: Request, visitor: Visitor[PageUser], said: str = ""
    ) -> Response:
        file = request.path_params["file"]
        asked = await run_in_threadpool(self._actions.request, file)
        known = asked.site in self._study.sites.sites()
        values = {"file": file, "asked": asked, "known": known, "said": said}
        return self._frame.page("admit.html.j2", visitor, 400 if said else 200, **values)


def _count(text: str) -> int | None:
    """Return a number of people, None where none is given.

    Raises:
        TrustError: It is no number (HF-831).
    """
    if not text:
        return None
    if text.isascii() and text.isdigit() and 0 < int(text) < 10**12:
        return int(text)
    raise TrustError(831, where="most subjects", seen=repr(text[:40]), wanted="a number of people")


def _positive(number: int | None) -> int | None:
    """Return a number of people, None where none is given.

    Raises:
        TrustError: It is no number of people (HF-831).
    """
    return None if number is None else _count(str(number))
