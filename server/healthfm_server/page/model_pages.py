"""The models of a study's runs side by side, and their aliases."""

from __future__ import annotations

from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from healthfm_core.errors import HealthFMError, RunError
from healthfm_core.local_page.page_access import API, PageAccess, Visitor
from healthfm_core.local_page.page_frame import PageFrame
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.page.json_fields import fields_of
from healthfm_server.page.page_rules import PageUser
from healthfm_server.page.study_actions import StudyActions
from healthfm_server.registry.model_aliases import OVER, AliasedModel, ModelAliases
from healthfm_server.registry.model_comparison import comparison, how_to_read
from healthfm_server.registry.study_models import StudyModel, study_models

RETIRED: Final = "No model has this alias then. The model itself stays, and so does its run."


class ModelPages:
    """The page of models, and what moves their aliases.

    Args:
        actions: Move them; they know the study.
        frame: Goes around each page.
    """

    def __init__(self, actions: StudyActions, frame: PageFrame[PageUser]) -> None:
        self._actions = actions
        self._study = actions.study
        self._frame = frame

    def routes(self, access: PageAccess[PageUser]) -> list[Route]:
        """Return the routes: to look at models for who may look, the rest for who may order."""

        def route(method: str, path: str, answer: Any) -> Route:
            return Route(path, access.guarded("order", answer), methods=[method])

        return [
            Route("/models", access.guarded("look", self.models), methods=["GET"]),
            route("GET", "/models/{run}/promote", self.promote_form),
            route("POST", "/models/{run}/promote", self.promote),
            route("GET", "/aliases/{alias}/retire", self.retire_form),
            route("POST", "/aliases/{alias}/retire", self.retire),
        ]

    def api_routes(self, access: PageAccess[PageUser]) -> list[Route]:
        """Return the routes for programs."""
        changes = {
            "/models/{run}/promote": self.api_promote,
            "/aliases/{alias}/retire": self.api_retire,
        }
        looked_at = Route(f"{API}/models", access.guarded("look", self.api_models))
        return [looked_at, *access.changes(changes)]

    async def models(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Show the models side by side."""
        values = await run_in_threadpool(self._side_by_side)
        return self._frame.page("models.html.j2", visitor, **values)

    async def promote_form(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Ask for the alias that a model is to have."""
        return await self._promote(request, visitor)

    async def promote(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Give a model an alias."""
        alias = (await self._frame.form_of(request, visitor)).get("alias", "").strip()
        run = request.path_params["run"]
        try:
            await run_in_threadpool(self._actions.promote, run, alias, visitor.name)
        except HealthFMError as error:
            return await self._promote(request, visitor, alias, str(error))
        return RedirectResponse(f"{visitor.root}/models", 303)

    async def retire_form(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Ask whether an alias is to be taken away."""
        alias = request.path_params["alias"]
        await run_in_threadpool(self._aliases().of, alias)
        return self._frame.page(
            "confirm.html.j2",
            visitor,
            question=f"Retire the alias {alias}?",
            effect=RETIRED,
            verb="retire",
            back="models",
        )

    async def retire(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Take an alias away."""
        await self._frame.form_of(request, visitor)
        alias = request.path_params["alias"]
        await run_in_threadpool(self._actions.retire, alias, visitor.name)
        return RedirectResponse(f"{visitor.root}/models", 303)

    async def api_models(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer the models that runs ended with, and their aliases."""

        def found() -> list[dict[str, Any]]:
            return [model.as_values() for model in study_models(self._study)]

        return JSONResponse({"models": await run_in_threadpool(found)})

    async def api_promote(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Give a model an alias for a program."""
        given = await fields_of(request, "alias", {"alias": str}, "alias is text", ("alias",))
        alias = given["alias"]
        run = request.path_params["run"]
        new, before = await run_in_threadpool(self._actions.promote, run, alias, visitor.name)
        told = {**_told(alias, new), "before": before.run if before else None}
        return JSONResponse(told)

    async def api_retire(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Take an alias away for a program."""
        alias = request.path_params["alias"]
        model = await run_in_threadpool(self._actions.retire, alias, visitor.name)
        return JSONResponse(_told(alias, model))

    def _aliases(self) -> ModelAliases:
        return ModelAliases(self._study.path, self._study.runs)

    def _side_by_side(self) -> dict[str, Any]:
        models = list(study_models(self._study))
        rows = list(comparison(models)) if models else []
        says = how_to_read(models) if models else ""
        return {"models": models, "rows": rows, "over": OVER, "how_to_read": says}

    async def _promote(
        self, request: Request, visitor: Visitor[PageUser], alias: str = "", said: str = ""
    ) -> Response:
        run = request.path_params["run"]
        known = await run_in_threadpool(self._aliases().all)
        model = await run_in_threadpool(self._model, run)
        values = {"model": model, "known": known, "alias": alias, "said": said}
        return self._frame.page("promote.html.j2", visitor, 400 if said else 200, **values)

    def _model(self, run: str) -> StudyModel:
        order = RunOrder.find(self._study.runs, run)
        found = StudyModel.of(order, self._aliases().all())
        if found is None:
            raise RunError(732, where=f"run {order.name}", seen="it has no model")
        return found


def _told(alias: str, model: AliasedModel) -> dict[str, Any]:
    return {"alias": alias, "run": model.run, "round": model.round, "sha256": model.sha256}
