"""What every page and form needs: the frame around it, and proof of where a form comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from healthfm_core.errors import TrustError
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.page.page_access import Visitor
from healthfm_server.page.page_templates import rendered

MOST_FORM_BYTES: Final = 64 * 1024


class PageFrame:
    """Makes the pages of one study.

    Args:
        study: Its name.
        log: Takes what is refused.
    """

    def __init__(self, study: str, log: AuditLog) -> None:
        self._study = study
        self._log = log

    def page(
        self, template: str, visitor: Visitor | None, status: int = 200, /, **values: object
    ) -> Response:
        """Return a page.

        Args:
            template: Its name.
            visitor: Who looks; None where nobody is signed in.
            status: Of the answer.
            values: The template's.
        """
        return HTMLResponse(
            rendered(template, study=self._study, visitor=visitor, **values), status
        )

    async def form_of(self, request: Request, visitor: Visitor) -> Mapping[str, str]:
        """Return a form's fields, where a page of the visitor's own session sent it.

        Raises:
            TrustError: It is another's (HF-832), or too large (HF-831).
        """
        form = await read_form(request)
        if visitor.session is not None and visitor.session.sent_form(form.get("form", "")):
            return form
        details = {"reason": "form of another page", "token": visitor.token.name}
        await run_in_threadpool(self._log.note_refusal, "page refused", details)
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
