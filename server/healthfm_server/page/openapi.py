"""The description of the API, as OpenAPI 3.1 has it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from healthfm_server.page.page_access import API
from healthfm_server.page.round_cells import SiteState

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TIME: Final[Schema] = {"type": "string", "description": "ISO 8601 in UTC; empty where unknown"}
COUNT: Final[Schema] = {"type": "integer"}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
REASONS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
FIGURES: Final[Schema] = {"type": "object", "additionalProperties": {"type": "number"}}
STATES: Final = ("waiting", "running", "paused", "stopped", "finished", "failed", "interrupted")


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


SITE: Final = _object(
    site=TEXT,
    state={"enum": ["admitted", "revoked"]},
    modalities=TEXTS,
    connected={"type": ["boolean", "null"], "description": "null: not known just now"},
    last_seen=TIME,
    last_connected=TIME,
)
WAIT: Final = _object(
    what={"enum": ["connections", "approval", "answers"]},
    sites=TEXTS,
    since=TIME,
    sentence=TEXT,
)
RUN: Final = _object(
    run=TEXT,
    wanted={"enum": ["running", "paused", "stopped"]},
    state={"enum": list(STATES)},
    waits_for={"oneOf": [WAIT, {"type": "null"}]},
    rounds_done=COUNT,
    rounds=COUNT,
    submissions=COUNT,
    reason=TEXT,
    coverage={"type": "object", "additionalProperties": FIGURES},
    codes=TEXT,
    rolled_up=TEXT,
    devices=TEXT,
    inputs={"type": ["object", "null"], "description": "what of the sites' devices is read"},
    chosen_round=TEXT,
    answered=TEXTS,
    set_aside=REASONS,
    outliers=REASONS,
    metrics=FIGURES,
    alarms=TEXTS,
)
SITE_NOW: Final = _object(site=TEXT, state={"enum": [one.word for one in SiteState]}, reason=TEXT)
RUN_FACTS: Final = _object(
    **RUN["properties"],
    order={"type": "object"},
    open_round={"type": ["integer", "null"]},
    sites_now=_list_of("SiteNow"),
    round_seconds={"type": ["number", "null"], "description": "mean of the last rounds"},
    expected_end=TIME,
    privacy={"type": "object", "description": "spent by sums that carry noise; empty without"},
)
STATUS: Final = _object(
    study=TEXT,
    url=TEXT,
    root_words=TEXT,
    root_fingerprint=TEXT,
    rotation={"type": ["object", "null"], "description": "which sites stand on an older root"},
    alarms=TEXTS,
    sites=_list_of("Site"),
    runs=_list_of("Run"),
    processes=REASONS,
)
PARTICIPATION: Final = _object(
    site=TEXT,
    asked=COUNT,
    answered=COUNT,
    held_back=COUNT,
    late=COUNT,
    refused=COUNT,
    answer_s={"type": ["number", "null"], "description": "mean of the newest rounds"},
    epsilon={"type": ["number", "null"], "description": "largest that the site told"},
    reasons=TEXTS,
)
REPORT: Final = _object(
    title=TEXT,
    is_final={"type": "boolean"},
    facts={"type": "array", "items": _object(what=TEXT, value=TEXT)},
    participation=_list_of("Participation"),
    metrics=FIGURES,
    site_metrics={"type": "object", "additionalProperties": FIGURES},
    alarms=TEXTS,
    notes=TEXTS,
)
SCHEMAS: Final[dict[str, Schema]] = {
    "Site": SITE,
    "Run": RUN,
    "SiteNow": SITE_NOW,
    "RunFacts": RUN_FACTS,
    "Status": STATUS,
    "Participation": PARTICIPATION,
    "Report": REPORT,
    "Error": {**_object(error=TEXT), "description": "with `code` where there is one"},
}
NAME: Final = {"name": "name", "in": "path", "required": True, "schema": TEXT}
LIMIT: Final = {"name": "limit", "in": "query", "schema": COUNT, "description": "100; at most 1000"}
AFTER: Final = {"name": "after", "in": "query", "schema": COUNT, "description": "later rounds only"}
BEFORE: Final = {"name": "before", "in": "query", "schema": COUNT, "description": "lower `n` only"}
ROWS: Final[Schema] = {"type": "array", "items": {"type": "object"}}


def description() -> dict[str, Any]:
    """Return the description of the API."""
    reads: dict[str, tuple[str, list[Schema], Schema]] = {
        "/status": (
            "Sites, runs, alarms and processes",
            [],
            {"$ref": "#/components/schemas/Status"},
        ),
        "/runs": ("The runs", [], _object(runs=_list_of("Run"))),
        "/runs/{name}": (
            "One run, and what each site does in it now",
            [NAME],
            {"$ref": "#/components/schemas/RunFacts"},
        ),
        "/runs/{name}/history": (
            "Rows of rounds: who answered, what moved, metrics, seconds",
            [NAME, AFTER, LIMIT],
            _object(rows=ROWS),
        ),
        "/runs/{name}/events": (
            "What was noted, the newest first",
            [NAME, LIMIT],
            _object(events=ROWS),
        ),
        "/runs/{name}/report": (
            "What a run has shown so far: facts, who took part, metrics, fingerprints",
            [NAME],
            {"$ref": "#/components/schemas/Report"},
        ),
        "/sites": (
            "The sites, and the files of requests that wait",
            [],
            _object(sites=_list_of("Site"), requests=TEXTS),
        ),
        "/log": ("Lines of the audit log, the newest first", [BEFORE, LIMIT], _object(lines=ROWS)),
        "/openapi.json": ("This description", [], {"type": "object"}),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "HealthFM, the coordinator", "version": version("healthfm")},
        "security": [{"token": []}],
        "paths": _paths(reads),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths(reads: dict[str, tuple[str, list[Schema], Schema]]) -> dict[str, Any]:
    paths = {f"{API}{path}": {"get": _read(*about)} for path, about in reads.items()}
    for path, (summary, parameters, body, status, schema) in _changes().items():
        change = _read(summary, parameters, schema)
        change["responses"] = {status: change["responses"].pop("200"), **change["responses"]}
        if body:
            change["requestBody"] = {"content": {"application/json": {"schema": body}}}
        paths.setdefault(f"{API}{path}", {})["post"] = change
    return paths


def _changes() -> dict[str, tuple[str, list[Schema], Schema | None, str, Schema]]:
    """Return what a coordinator's token may change: path → what of it is told."""
    wish = {"settings": TEXTS, "name": TEXT, "sites": TEXTS, "even_so": {"type": "boolean"}}
    order: Schema = {"type": "object", "properties": wish, "additionalProperties": False}
    told = _object(run=TEXT, wanted=RUN["properties"]["wanted"])
    changed = _object(site=TEXT, state={"enum": ["revoked"]})
    return {
        "/runs": ("Order a run; without `sites` it is for all", [], order, "201", told),
        "/runs/{name}/pause": ("Stop a run for now", [NAME], None, "200", told),
        "/runs/{name}/resume": ("Continue a run", [NAME], None, "200", told),
        "/runs/{name}/stop": ("Give a run up", [NAME], None, "200", told),
        "/sites/{name}/revoke": ("Shut a site out", [NAME], None, "200", changed),
    }


def _read(summary: str, parameters: list[Schema], schema: Schema) -> dict[str, Any]:
    return {
        "summary": summary,
        "parameters": parameters,
        "responses": {"200": _answer("done", schema), **_refusals()},
    }


def _answer(said: str, schema: Schema) -> dict[str, Any]:
    return {"description": said, "content": {"application/json": {"schema": schema}}}


def _refusals() -> dict[str, Any]:
    error = {"$ref": "#/components/schemas/Error"}
    said = {
        "400": "cannot be done; the sentence says why",
        "401": "no token, or one that is not known",
        "403": "the token's role does not permit it",
        "404": "there is no such run or site",
    }
    return {status: _answer(text, error) for status, text in said.items()}
