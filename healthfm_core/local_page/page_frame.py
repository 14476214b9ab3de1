"""What every page and form needs: the frame around it, and proof of where a form comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Generic
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from healthfm_core.errors import TrustError
from healthfm_core.local_page.page_access import PageRules, Visitor
from healthfm_core.local_page.page_sessions import Who
from healthfm_core.local_page.page_templates import PageTemplates

MOST_FORM_BYTES: Final = 64 * 1024


class PageFrame(Generic[Who]):
    """Makes pages.

    Args:
        title: What stands at the head of each.
        templates: Theirs.
        rules: Take what is refused.

    Attributes:
        templates: As given.
    """

    def __init__(self, title: str, templates: PageTemplates, rules: PageRules[Who]) -> None:
        self.templates = templates
        self._title = title
        self._rules = rules

    def page(
        self, template: str, visitor: Visitor[Who] | None, status: int = 200, /, **values: object
    ) -> Response:
        """Return a page.

        Args:
            template: Its name.
            visitor: Who looks; None where nobody is signed in.
            status: Of the answer.
            values: The template's.
        """
        text = self.templates.rendered(template, title=self._title, visitor=visitor, **values)
        return HTMLResponse(text, status)

    async def form_of(self, request: Request, visitor: Visitor[Who]) -> Mapping[str, str]:
        """Return a form's fields, where a page of the visitor's own session sent it.

        Raises:
            TrustError: It is another's (HF-832), or too large (HF-831).
        """
        form = await read_form(request)
        if visitor.session is not None and visitor.session.sent_form(form.get("form", "")):
            return form
        details = {"path": "", "reason": "form of another page", "token": visitor.name}
        await run_in_threadpool(self._rules.note_refusal, details)
        raise TrustError(832, where="a form", seen="it does not come from a page of your session")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; of a field that is given twice the values, a line each.

    Raises:
        TrustError: It is too large or no form (HF-831).
    """
    data = await body_of(request)
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, strict_parsing=bool(data))
    except ValueError as error:
        raise TrustError(831, where="a form", seen="it cannot be read", wanted="a form") from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields[name] = f"{fields[name]}\n{value}" if name in fields else value
    return fields


async def body_of(request: Request) -> bytes:
    """Return what was sent.

    Raises:
        TrustError: It is too large (HF-831).
    """
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_FORM_BYTES:
            raise TrustError(831, where="a form", seen="it is too large", wanted="64 KiB at most")
    return data


def number_of(request: Request, name: str, usual: int) -> int:
    """Return a number of the query.

    Raises:
        TrustError: It is none (HF-831).
    """
    given = request.query_params.get(name, str(usual))
    if given.isascii() and given.isdigit() and len(given) < 16:
        return int(given)
    raise TrustError(831, where=f"{name}=", seen=repr(given[:40]), wanted="a number")
