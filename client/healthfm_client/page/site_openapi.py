"""The description of the site's API, as OpenAPI 3.1 has it."""

from __future__ import annotations

from typing import Any, Final, get_args

from healthfm_client.site.run_approvals import Answer
from healthfm_client.site_status import CONNECTED, STAGES
from healthfm_core.local_page.openapi_parts import (
    ANY,
    COUNT,
    REASONS,
    ROWS,
    TEXT,
    TEXT_OR_NULL,
    TEXTS,
    TIME,
    YES,
    ApiCall,
    Schema,
    described_api,
    in_path,
    in_query,
    list_of,
    object_of,
    reference,
)

ANSWER: Final[Schema] = {"enum": list(get_args(Answer))}
STATE: Final[Schema] = {"enum": ["open", "paused", "left"]}
CONNECTION: Final = object_of(state={"enum": list(CONNECTED)}, sentence=TEXT, do=TEXT, since=TIME)
WAITING: Final = object_of(run=TEXT, name=TEXT, study=TEXT, since=TIME)
STATUS: Final = object_of(
    site=TEXT,
    study=TEXT,
    server=TEXT,
    root_words=TEXT,
    root_fingerprint=TEXT,
    own_words=TEXT,
    own_fingerprint=TEXT,
    signing_words=TEXT,
    signing_key=TEXT,
    certificate_until=TEXT,
    certificate_renews_from=TEXT,
    stage={"enum": list(STAGES)},
    state=STATE,
    works_at_this_hour=YES,
    processes_run=YES,
    processes=REASONS,
    connection=reference("Connection"),
    runs_without_noise=TEXT_OR_NULL,
    runs_waiting=COUNT,
    waiting=list_of("Waiting"),
    connection_refused=TEXT_OR_NULL,
    last_left=TEXT_OR_NULL,
    last_refused=TEXT_OR_NULL,
    lines_in_log=COUNT,
)
RUN: Final = object_of(
    run=TEXT,
    called=TEXT,
    study=TEXT,
    since=TIME,
    expires=TIME,
    answer=ANSWER,
    answered=TIME,
    further=YES,
)
RUN_FACTS: Final = object_of(
    **RUN["properties"],
    name=TEXT,
    config_hash=TEXT,
    words=TEXTS,
    terms=TEXT,
    config=ANY,
    stated={"type": ["object", "null"]},
    facts=ANY,
    approved_by=TEXT,
    digest={"type": "string", "description": "of the request; an answer names it"},
    differs=ANY,
)
LOOK: Final = object_of(
    at=TIME,
    answer={"type": ["object", "array", "null"], "description": "what the command printed"},
    trouble={"type": "string", "description": "what it complained of instead"},
    running=YES,
    current={"type": "boolean", "description": "whether it is of what is there now"},
)
STORE: Final = object_of(
    store=TEXT, description=reference("Look"), quality={"type": ["object", "null"]}
)
SCHEMAS: Final[dict[str, Schema]] = {
    "Connection": CONNECTION,
    "Waiting": WAITING,
    "Status": STATUS,
    "Run": RUN,
    "RunFacts": RUN_FACTS,
    "Look": LOOK,
    "Store": STORE,
}
NAME: Final = in_path("run")
SEARCH: Final = (
    in_query("search", "words that all stand in a line", TEXT),
    in_query("what", "kind of message", TEXT),
    in_query("outcome", "`left` or `refused`", TEXT),
    in_query("since", "first day, as 2026-11-24", TEXT),
    in_query("until", "last day", TEXT),
    in_query("before", "`earlier` of the answer before"),
    in_query("limit", "100; at most 1000"),
)


def site_description() -> dict[str, Any]:
    """Return the description of the API."""
    return described_api("HealthFM, a site", _reads(), _changes(), SCHEMAS)


def _reads() -> dict[str, ApiCall]:
    found = object_of(lines=ROWS, earlier=COUNT, reached=TEXT)
    return {
        "/status": ApiCall("What healthfm-client status --json prints", reference("Status")),
        "/runs": ApiCall("The runs that asked", object_of(runs=list_of("Run"))),
        "/runs/{run}": ApiCall("What one would do here", reference("RunFacts"), (NAME,)),
        "/left": ApiCall("Lines of what has left, the newest first", found, SEARCH),
        "/left/{number}": ApiCall("One line of it", ANY, (in_path("number"),)),
        "/log": ApiCall("Whether what has left is whole (audit --verify)", reference("Look")),
        "/privacy": ApiCall("The privacy budget (privacy)", reference("Look")),
        "/data": ApiCall("The stores: description, quality", object_of(stores=list_of("Store"))),
        "/doctor": ApiCall("What the doctor finds (doctor)", reference("Look")),
        "/openapi.json": ApiCall("This description", ANY),
    }


def _changes() -> dict[str, ApiCall]:
    fields = {"digest": TEXT, "further": YES}
    body: Schema = {"type": "object", "properties": fields, "required": ["digest"]}
    answered = object_of(run=TEXT, called=TEXT, answer=ANSWER, further=YES)
    now, begun = object_of(state=STATE), object_of(running=YES)
    return {
        "/runs/{run}/approve": ApiCall("Let a run compute here", answered, (NAME,), body),
        "/runs/{run}/deny": ApiCall("Refuse a run", answered, (NAME,), body),
        "/pause": ApiCall("Refuse every request for now", now),
        "/resume": ApiCall("Answer requests again", now),
        "/leave": ApiCall("Stop taking part", now),
        "/return": ApiCall("Take part again", now),
        "/start": ApiCall("Start the site's processes", now),
        "/log": ApiCall("Hold every line against the one before", begun, status="202"),
        "/privacy": ApiCall("Count the budget again", begun, status="202"),
        "/data": ApiCall("Check the stores' quality", begun, status="202"),
        "/doctor": ApiCall("Let the doctor look again", begun, status="202"),
        "/links": ApiCall("What a one-time link ends with", object_of(secret=TEXT), status="201"),
    }
