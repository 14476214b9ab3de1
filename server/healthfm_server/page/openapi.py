"""The description of the coordinator's API, as OpenAPI 3.1 has it."""

from __future__ import annotations

from typing import Any, Final

from healthfm_core.local_page.openapi_parts import (
    ANY,
    COUNT,
    FIGURE_OR_NULL,
    FIGURES,
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
from healthfm_server.page.round_cells import SiteState
from healthfm_server.run_folder.dry_run_file import WOULD

STATES: Final = ("waiting", "running", "paused", "stopped", "finished", "failed", "interrupted")
SITE: Final = object_of(
    site=TEXT,
    state={"enum": ["admitted", "revoked"]},
    modalities=TEXTS,
    connected={"type": ["boolean", "null"], "description": "null: not known just now"},
    last_seen=TIME,
    last_connected=TIME,
)
WAIT: Final = object_of(
    what={"enum": ["connections", "approval", "answers"]},
    sites=TEXTS,
    since=TIME,
    sentence=TEXT,
)
DRY_RUN: Final = object_of(
    at=TEXT,
    sites={
        "type": "object",
        "additionalProperties": object_of(would={"enum": list(WOULD)}, reason=TEXT),
    },
    expected={"type": ["object", "null"], "description": "by an earlier run with the same model"},
    said=TEXT,
)
RUN: Final = object_of(
    run=TEXT,
    wanted={"enum": ["running", "paused", "stopped"]},
    state={"enum": list(STATES)},
    waits_for={"oneOf": [WAIT, {"type": "null"}]},
    rounds_done=COUNT,
    rounds=COUNT,
    dry_run={"oneOf": [DRY_RUN, {"type": "null"}]},
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
SITE_NOW: Final = object_of(site=TEXT, state={"enum": [one.word for one in SiteState]}, reason=TEXT)
RUN_FACTS: Final = object_of(
    **RUN["properties"],
    order=ANY,
    open_round={"type": ["integer", "null"]},
    sites_now=list_of("SiteNow"),
    round_seconds={**FIGURE_OR_NULL, "description": "mean of the last rounds"},
    expected_end=TIME,
    privacy={"type": "object", "description": "spent by sums that carry noise; empty without"},
)
STATUS: Final = object_of(
    study=TEXT,
    url=TEXT,
    root_words=TEXT,
    root_fingerprint=TEXT,
    rotation={"type": ["object", "null"], "description": "which sites stand on an older root"},
    alarms=TEXTS,
    sites=list_of("Site"),
    runs=list_of("Run"),
    processes=REASONS,
)
PARTICIPATION: Final = object_of(
    site=TEXT,
    asked=COUNT,
    answered=COUNT,
    held_back=COUNT,
    late=COUNT,
    refused=COUNT,
    answer_s={**FIGURE_OR_NULL, "description": "mean of the newest rounds"},
    epsilon={**FIGURE_OR_NULL, "description": "largest that the site told"},
    reasons=TEXTS,
)
METRIC_ROW: Final = object_of(
    arm=TEXT,
    task=TEXT,
    subset=TEXT,
    metric=TEXT,
    value=FIGURE_OR_NULL,
    low={**FIGURE_OR_NULL, "description": "lower end of the 95 % interval over people"},
    high=FIGURE_OR_NULL,
    n_subjects=COUNT,
)
REPORT: Final = object_of(
    title=TEXT,
    is_final=YES,
    facts={"type": "array", "items": object_of(what=TEXT, value=TEXT)},
    participation=list_of("Participation"),
    metrics=FIGURES,
    site_metrics={"type": "object", "additionalProperties": FIGURES},
    held_out={**list_of("MetricRow"), "description": "over the sites that told"},
    site_held_out={"type": "object", "additionalProperties": list_of("MetricRow")},
    alarms=TEXTS,
    notes=TEXTS,
)
MODEL: Final = object_of(
    run=TEXT,
    run_id=TEXT,
    state=TEXT,
    round=COUNT,
    sha256={**TEXT, "description": "of the file of weights"},
    aliases=TEXTS,
    sites={**TEXTS, "description": "that trained it"},
    judges={**TEXTS, "description": "sites that judged it on their held-out people"},
    held_out={**list_of("MetricRow"), "description": "over these sites"},
)
SCHEMAS: Final[dict[str, Schema]] = {
    "Site": SITE,
    "Run": RUN,
    "SiteNow": SITE_NOW,
    "RunFacts": RUN_FACTS,
    "Status": STATUS,
    "Participation": PARTICIPATION,
    "MetricRow": METRIC_ROW,
    "Report": REPORT,
    "Model": MODEL,
}
NAME: Final = in_path("name")
LIMIT: Final = in_query("limit", "100; at most 1000")
AFTER: Final = in_query("after", "later rounds only")
BEFORE: Final = in_query("before", "lower `n` only")


def description() -> dict[str, Any]:
    """Return the description of the API."""
    return described_api("HealthFM, the coordinator", _reads(), _changes(), SCHEMAS)


def _reads() -> dict[str, ApiCall]:
    events = "What was noted, the newest first"
    sites = object_of(sites=list_of("Site"), requests=TEXTS)
    return {
        "/status": ApiCall("Sites, runs, alarms and processes", reference("Status")),
        "/runs": ApiCall("The runs", object_of(runs=list_of("Run"))),
        "/runs/{name}": ApiCall(
            "One run, and what each site does in it now", reference("RunFacts"), (NAME,)
        ),
        "/runs/{name}/history": ApiCall(
            "Rows of rounds: who answered, what moved, metrics, seconds",
            object_of(rows=ROWS),
            (NAME, AFTER, LIMIT),
        ),
        "/runs/{name}/events": ApiCall(events, object_of(events=ROWS), (NAME, LIMIT)),
        "/runs/{name}/report": ApiCall(
            "What a run has shown so far: facts, who took part, metrics, fingerprints",
            reference("Report"),
            (NAME,),
        ),
        "/models": ApiCall(
            "The models that runs ended with, and their aliases",
            object_of(models=list_of("Model")),
        ),
        "/sites": ApiCall("The sites, and the files of requests that wait", sites),
        "/log": ApiCall(
            "Lines of the audit log, the newest first", object_of(lines=ROWS), (BEFORE, LIMIT)
        ),
        "/openapi.json": ApiCall("This description", ANY),
    }


def _changes() -> dict[str, ApiCall]:
    """Return what a coordinator's token may change."""
    wish = {"settings": TEXTS, "name": TEXT, "sites": TEXTS, "even_so": YES, "dry_run": YES}
    order: Schema = {"type": "object", "properties": wish, "additionalProperties": False}
    told = object_of(run=TEXT, wanted=RUN["properties"]["wanted"])
    changed = object_of(site=TEXT, state={"enum": ["revoked"]})
    aliased = {"alias": TEXT, "run": TEXT, "round": COUNT, "sha256": TEXT}
    admit: Schema = {
        "type": "object",
        "properties": {"name": TEXT, "words": TEXT, "most_subjects": COUNT, "renew": YES},
        "required": ["name", "words"],
        "additionalProperties": False,
    }
    launch = "Order a run, or with `dry_run` only ask the sites; without `sites` it is for all"
    return {
        "/runs": ApiCall(launch, told, (), order, "201"),
        "/runs/{name}/pause": ApiCall("Stop a run for now", told, (NAME,)),
        "/runs/{name}/resume": ApiCall("Continue a run", told, (NAME,)),
        "/runs/{name}/stop": ApiCall("Give a run up", told, (NAME,)),
        "/sites/{name}/revoke": ApiCall("Shut a site out", changed, (NAME,)),
        "/requests/{file}/admit": ApiCall(
            "Admit a site by the ten words that it read; `kit` is a file of the coordinator's",
            object_of(site=TEXT, state={"enum": ["admitted"]}, kit=TEXT),
            (in_path("file"),),
            admit,
            "201",
        ),
        "/models/{run}/promote": ApiCall(
            "Have an alias stand for a run's model",
            object_of(**aliased, before=TEXT_OR_NULL),
            (in_path("run"),),
            {**object_of(alias=TEXT), "additionalProperties": False},
        ),
        "/aliases/{alias}/retire": ApiCall(
            "Take an alias away; the model stays", object_of(**aliased), (in_path("alias"),)
        ),
    }
