"""A study folder with made-up sites and rounds, and a client of its page."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, replace

from healthfm_core.config.run import RunConfig
from healthfm_core.trust.site_registry import AdmittedSite
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.site_calls import CallTimes
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.page.coordinator_page import CoordinatorPage
from healthfm_server.run_folder.held_out_file import HeldOutTold
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.run_folder.run_waiting import Waiting
from healthfm_server.run_report.run_report import FOLDER, RunReport
from tests.page.page_client import served

NODES = {"north": 7, "south": 2**63 + 5, "west": 11}
EVIL = "<script>alert(1)</script>"
"""Not a name that `check_name` lets through: as if somebody had written it into the files."""


def make_study(folder, nodes=None):
    """Return a study whose sites are on the list."""
    study = StudyFolder.create(folder, StudySettings(study="demo", hosts=("127.0.0.1",)))
    rows = []
    for name, node in (NODES if nodes is None else nodes).items():
        prints = {"tls": "aa", "node": "bb", "signing": "cc"}
        site = AdmittedSite(name, node, "ssh", "pem", ("ehr",), prints, "2026-11-24T00:00:00Z")
        rows.append(asdict(site))
    study.sites.path.write_text(json.dumps(rows))
    return study


def order_run(study, name="first", rounds=5, **about):
    """Return a run that is being computed."""
    config = RunConfig.model_validate({"federation": {"rounds": rounds}})
    order = RunOrder.give(study.runs, name, config, None, **about)
    order.note(replace(order.status(), state="running", flower_run=9, submissions=1))
    (order.folder / "checkpoints").mkdir()
    return order


def add_round(order, number, *, late=(), refused=(), asked=tuple(NODES), alarms=()):
    """Append a round's row, as `history_row` makes it."""
    store = RunStore(order.folder, keep=1)
    reasons = dict.fromkeys(late, "it did not answer in time")
    reasons |= dict.fromkeys(refused, "its update is not finite")
    answered = [site for site in asked if site not in reasons]
    row = {
        "round": number,
        "seconds": 10.0 + number,
        "asked": sorted(asked),
        "answered": sorted(answered),
        "set_aside": reasons,
        "groups": {
            "backbone": {"sites": len(answered), "weight": 100.0},
            "ehr": {"sites": len(answered), "weight": 100.0},
        },
        "metrics": {"tuning_auroc": 0.5 + number / 100, "loss_codes": 1 / number, "steps": 4.0},
        "site_metrics": {
            site: {"tuning_auroc": 0.5 + number / 200, "loss_codes": 2.0} for site in answered
        },
        "site_seconds": {site: 3.0 + at for at, site in enumerate(answered)},
        "alarms": list(alarms),
    }
    with (order.folder / "history.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    (order.folder / "checkpoints" / f"round-{number:04d}.json").write_text("{}")
    return store


def judged(order, **sites):
    """Write what sites told of their held-out people: AUROC, people, gain."""
    metrics = {}
    for site, (auroc, people, gain) in sites.items():
        own = {"held_out": auroc, "own_model": auroc - gain, "gain": gain}
        told = {}
        for prefix, value in own.items():
            if prefix == "held_out" or gain:
                told |= {
                    f"{prefix}/overall/auroc": value,
                    f"{prefix}/overall/auroc_low": value - 0.1,
                    f"{prefix}/overall/auroc_high": value + 0.1,
                    f"{prefix}/overall/n_subjects": people,
                    f"{prefix}/new_onset/average_precision": value,
                    f"{prefix}/new_onset/average_precision_low": value - 0.1,
                    f"{prefix}/new_onset/average_precision_high": value + 0.1,
                    f"{prefix}/new_onset/n_subjects": people,
                }
        told |= {"held_out/sex=F/auroc": auroc, "held_out/sex=F/auroc_low": auroc - 0.2}
        told |= {"held_out/sex=F/auroc_high": auroc + 0.2, "held_out/sex=F/n_subjects": 40.0}
        told |= {"held_out/sex=M/withheld": 1.0}
        told |= {f"held_out/risk/0/{name}": 0.1 for name in ("predicted", "observed")}
        told |= {"held_out/risk/0/rows": 300.0}
        metrics[site] = told
    HeldOutTold(3, tuple(NODES), metrics, {"west": "it did not answer in time"}).save(order.folder)


def write_report(study, order):
    """Write a run's report, as the command does, so that no process has to."""
    RunReport.of(study, order).write(order.folder / FOLDER)


def wait_for(order, what, phase, nodes, asked=()):
    """Note what a run waits for."""
    since = "2026-11-24T07:00:00+00:00"
    note = Waiting(what, phase, tuple(nodes), max(len(asked), len(nodes)), since, tuple(asked))
    (order.folder / "waits-for.json").write_text(json.dumps(asdict(note)))


def set_online(study, connected, taken=()):
    """Write Flower's database and the gateway's note: who is there, who has an order."""
    now, until = time.time(), time.time() + 60
    with closing(sqlite3.connect(study.database)) as opened, opened:
        opened.execute("DROP TABLE IF EXISTS node")
        opened.execute("DROP TABLE IF EXISTS message_ins")
        opened.execute("CREATE TABLE node (node_id INTEGER, online_until REAL)")
        opened.execute(
            "CREATE TABLE message_ins (run_id INTEGER, dst_node_id INTEGER, created_at REAL, "
            "delivered_at TEXT)"
        )
        signed = {name: node - 2**64 if node >= 2**63 else node for name, node in NODES.items()}
        rows = [(signed[name], until) for name in NODES]
        opened.executemany("INSERT INTO node VALUES (?, ?)", rows)
        orders = [(9, signed[name], 1.0, "now" if name in taken else "") for name in NODES]
        opened.executemany("INSERT INTO message_ins VALUES (?, ?, ?, ?)", orders)
    calls = {name: now if name in connected else now - 60 for name in NODES}
    study.process.mkdir(exist_ok=True)
    study.calls.write_text(CallTimes(now, now - 100, calls).to_json())


@contextmanager
def served_page(study):
    """Serve the page of a study on loopback, as its process does."""
    page = CoordinatorPage(study)
    with served(page, page.views.live) as asking:
        yield asking
