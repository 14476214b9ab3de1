"""docs/deployment.md, run line by line: from nothing to three sites that finish a study."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import ssl
import time
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from healthfm_client.runtime.site_supervision import supervision
from healthfm_client.site.site_folder import SiteFolder
from healthfm_client.site.site_home import SiteHome
from healthfm_core.data.store.site_store import SiteStore
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.run_folder.run_store import RunStore
from tests.end_to_end.alone import attempts, devices
from tests.end_to_end.chaos import inject
from tests.end_to_end.deployed import (
    HELD,
    REPOSITORY,
    SITES,
    Shell,
    approve_all,
    documented,
    free_ports,
    make_stores,
    told,
)
from tests.end_to_end.faults import Federation
from tests.end_to_end.proxy import proxy, proxy_file

pytestmark = pytest.mark.deployment

PAGE = REPOSITORY / "docs" / "deployment.md"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The whole tutorial up to its last command, which is run when the tests are through."""
    folder = tmp_path_factory.mktemp("deployed")
    names = ("PORT", "SUPERLINK_PORT", "PROXY_PORT", *(f"{site.upper()}_PORT" for site in SITES))
    values = {"HOST": "127.0.0.2"}  # loopback, but none that NO_PROXY names
    values |= dict(zip(names, map(str, free_ports(len(names))), strict=True))
    values["PROXY_FILE"] = proxy_file(folder, values)
    stores = make_stores(folder / "stores")
    values |= {f"{site.upper()}_STORE": str(path) for site, path in stores.items()}
    shell = Shell(folder, values)
    made, asked, signed, joined, *rest, rotated, retired, changed, audited = documented(PAGE)
    ordered, approved, ran, paused, promoted, tokens, monitored = rest
    with proxy(int(values["PROXY_PORT"]), "user", "secret") as tunnel:
        try:
            init, up = made
            values["ROOT"] = told(shell.run(init))
            shell.run(up)
            for site, line in zip(SITES, asked, strict=True):
                values[site.upper()] = told(shell.run(line))
            for line in (*signed, *joined, *ordered):
                shell.run(line)
            values["RUN"] = asked_for(folder)
            for line in (*approved, *ran, *paused, *promoted, *tokens, *monitored):
                shell.run(line)
            for line in audited:
                shell.run(line)
            yield shell, tunnel, (rotated, retired, changed)
        finally:
            for site in SITES:
                stop(folder / site)
            shell.run("healthfm-server down --study study")


def asked_for(folder) -> str:
    """Return the number of the run that asks at every site, once it does."""
    until = time.monotonic() + 600
    while True:
        asked = [[one.run for one in SiteHome(folder / site).approvals()] for site in SITES]
        if all(asked):
            (run,) = {run for runs in asked for run in runs}
            return run
        assert time.monotonic() < until, asked
        time.sleep(0.5)


def stop(site):
    """Stop a site's processes."""
    if (site / "process").is_dir():
        supervision(SiteFolder(site)).stop()


def audit(shell):
    return StudyFolder.open(shell.folder / "study").audit("test").rows()


@pytest.mark.slow
def test_three_sites_with_different_modalities_finish_three_rounds(deployed):
    shell, _, _ = deployed
    store = RunStore.open(shell.folder / "study" / "runs" / "first")
    history = store.history()
    assert [row["round"] for row in history] == [1, 2, 3]
    assert all(row["answered"] == sorted(SITES) and not row["set_aside"] for row in history)
    groups = history[-1]["groups"]
    assert groups["ehr"]["sites"] == 3
    prepared = {row["site"]: row["modalities"] for row in store.events() if "modalities" in row}
    for site, other in HELD.items():
        assert prepared[site] == sorted({"ehr", *([other] if other else [])})
    card = (shell.folder / "model" / "README.md").read_text("utf-8")
    assert "Run `first`, id `" in card
    assert all(re.search(rf"^\| {site} \| .* \| 3 of 3 \|$", card, re.M) for site in SITES)


@pytest.mark.slow
def test_the_site_behind_a_proxy_went_through_it_and_the_others_did_not(deployed):
    shell, tunnel, _ = deployed
    assert set(tunnel.tunnels) == {f"127.0.0.2:{shell.values['PORT']}"}
    connected = {row["site"] for row in audit(shell) if row["event"] == "site connected"}
    assert connected == set(SITES)


@pytest.mark.slow
def test_the_attacks_on_flowers_open_ports_reach_nothing(deployed):
    shell, _, _ = deployed
    roots = shell.folder / "study" / "server" / "trust.pem"
    url = f"https://127.0.0.2:{shell.values['PORT']}"
    context = ssl.create_default_context(cafile=roots)
    with httpx.Client(base_url=url, verify=context, trust_env=False) as client:
        for path in ("control/start-run", "control/list-nodes", "runtime/acquire-task"):
            assert client.post(f"/v1/{path}", content=b"").status_code == 404
        assert client.post("/v1/fleet/pull-messages", content=b"").status_code == 401
    loopback = f"http://127.0.0.1:{shell.values['SUPERLINK_PORT']}"
    with httpx.Client(base_url=loopback, trust_env=False) as client:
        proto = {"content-type": "application/protobuf", "accept": "application/protobuf"}
        for path in ("control/start-run", "control/list-nodes", "runtime/acquire-task"):
            assert client.post(f"/v1/{path}", content=b"", headers=proto).status_code == 401
    events = {(row["event"], row.get("reason")) for row in audit(shell)}
    assert ("control refused", "no token") in events
    assert ("call refused", "no certificate") in events
    assert any(row["event"] == "path refused" for row in audit(shell))


@pytest.mark.slow
def test_what_listens_beside_the_public_port_listens_on_loopback(deployed):
    shell, _, _ = deployed
    private = ("SUPERLINK_PORT", *(f"{site.upper()}_PORT" for site in SITES))
    for name in private:
        with socket.socket() as probe:
            probe.settimeout(5)
            assert probe.connect_ex(("127.0.0.1", int(shell.values[name]))) == 0
        with socket.socket() as other:  # taken on that address alone, so free on another
            other.bind(("127.0.0.3", int(shell.values[name])))


@pytest.mark.slow
def test_nothing_secret_is_in_a_log(deployed):
    shell, _, _ = deployed
    secrets = [(shell.folder / "study" / "secret" / "control").read_text()]
    logs = [*shell.folder.glob("*/process/*.log"), shell.folder / "study" / "audit.log"]
    assert len(logs) > 8
    for log in logs:
        text = log.read_text(errors="replace")
        assert not any(secret in text for secret in secrets), log.name


@pytest.mark.slow
def test_nothing_about_a_person_is_in_a_log(deployed):
    shell, _, _ = deployed
    logs = [*shell.folder.glob("*/process/*.log*"), *shell.folder.glob("*/egress.log")]
    logs += [shell.folder / "study" / "audit.log", *shell.folder.glob("study/runs/*/*.l*")]
    texts = {path: path.read_text(errors="replace") for path in logs}
    assert len(texts) > 12
    people, codes = set(), set()
    for site in SITES:
        store = SiteStore.open(Path(shell.values[f"{site.upper()}_STORE"]))
        people |= {str(subject) for subject in store.subjects()}
        codes |= set(store.events()["code"].to_pylist())
    assert len(people) > 500
    for path, text in texts.items():
        words = set(re.findall(r"[^\s\"',;:()\[\]{}=]+", text))
        assert not {w for w in words & people if len(w) > 4}, path
        assert not words & codes, path


@pytest.mark.slow
def test_stop_ends_the_sites_computing(deployed):
    shell, _, _ = deployed
    for site in SITES:
        approve_all(shell.folder / site)
    shell.run(
        "healthfm-server run --study study --name long model=tiny federation.rounds=2 "
        "train.local_epochs=100000 tokens.k_min=20"
    )
    workers = {site: supervision(SiteFolder(shell.folder / site)) for site in SITES}
    computing = {site: until(lambda site=site: training(workers[site])) for site in SITES}
    shell.run("healthfm-server stop --study study long")
    for site, process in computing.items():
        until(lambda site=site, process=process: worker_of(workers[site]) not in (None, process))
    # What starts anew computes for a while; what trains would for ever.
    until(lambda: not any(training(worker) for worker in workers.values()))
    status = json.loads(shell.run("healthfm-server status --json --study study"))
    (run,) = [run for run in status["runs"] if run["run"] == "long"]
    assert (run["state"], run["rounds_done"]) == ("stopped", 0)


def until(condition, patience_s=300.0):
    """Return what a condition gives, once it gives something."""
    end = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found


def worker_of(supervised):
    """Return the number of a site's worker, None while there is none."""
    state = supervised.states().get("worker", "")
    return int(state.split()[2].rstrip(",")) if state.startswith("RUNNING") else None


def training(supervised):
    """Return the number of a site's worker if its last word is that it trains, and it computes."""
    process = worker_of(supervised)
    if process is None or "train of round" not in last_begun(supervised.folder / "worker.log"):
        return None
    before = spent_s(process)
    time.sleep(2.0)
    return process if spent_s(process) - before > 0.1 else None


def last_begun(log):
    """Return the last line of a worker's log that says what it begins or has answered."""
    said = log.read_text().splitlines()
    lines = [line for line in said if line.endswith("begun") or " answered, " in line]
    return lines[-1] if lines and lines[-1].endswith("begun") else ""


def spent_s(process):
    """Return the processor time that a process has taken, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["worker", "superlink"])
def test_a_run_hit_by_a_kill_finishes_by_itself_with_every_round(deployed, fault):
    shell, tunnel, _ = deployed
    for site in SITES:
        approve_all(shell.folder / site)
    outcome = inject(Federation(shell, tunnel), fault, 1, 3, random.Random(fault))
    (shell.folder / f"{fault}.json").write_text(json.dumps(asdict(outcome)))
    assert outcome.finished, outcome
    assert outcome.missing == []


@pytest.mark.slow
def test_no_update_is_in_flowers_database_after_the_runs(deployed):
    """A .npy file begins so; the reconciler takes out what Flower deleted within a minute."""
    shell, *_ = deployed
    until = time.monotonic() + 600
    while any(
        b"\x93NUMPY" in f.read_bytes() for f in (shell.folder / "study").glob("superlink.db*")
    ):
        assert time.monotonic() < until
        time.sleep(1)


@pytest.mark.slow
def test_a_new_root_needs_no_new_kits_and_the_old_one_is_not_retired_too_early(deployed):
    shell, _, (rotated, retired, _) = deployed
    for line in rotated:
        shell.run(line)
    assert "HF-839" in shell.run(retired[0], fails=True)
    for site in SITES:  # a node asks as it begins, else every ten minutes
        shell.run(f"healthfm-client join --site {site}")
    until = time.monotonic() + 600
    while (status := json.loads(shell.run("healthfm-server status --json --study study")))[
        "rotation"
    ]["waiting"]:
        assert time.monotonic() < until, status["rotation"]
        time.sleep(0.5)
    for line in retired:
        shell.run(line)
    for site in SITES:
        shell.run(f"healthfm-client join --site {site}")
    assert status["root_words"] in shell.run("healthfm-client status --site north")


@pytest.mark.slow
def test_a_revoked_site_is_shut_out_and_the_study_comes_down(deployed):
    shell, _, (*_, changed) = deployed
    *before, down = changed
    for line in before:
        shell.run(line)
    until = time.monotonic() + 600
    while not any(
        row["event"] in ("call refused", "handshake refused")
        and row.get("reason") in ("revoked site", "certificate revoked")
        for row in audit(shell)
    ):
        assert time.monotonic() < until
        time.sleep(0.5)
    status = json.loads(shell.run("healthfm-server status --json --study study"))
    assert {s["site"]: s["state"] for s in status["sites"]}["west"] == "revoked"
    shell.run(down)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(shell.values["PORT"]))) != 0


@pytest.mark.slow
def test_no_name_was_looked_up_and_nothing_was_sent_beyond_loopback(deployed):
    if devices() != {"lo"}:
        pytest.skip("this network has more than loopback; make test-deployment makes one without")
    assert attempts() == {"no route": 0, "datagrams": 0}
