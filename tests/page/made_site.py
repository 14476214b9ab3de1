"""A site's folder with a store, runs that asked, what left and what was spent; and its page."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import datetime, timedelta

from healthfm_client.consent.run_facts import run_facts
from healthfm_client.local_work import StoreSpec
from healthfm_client.page.site_page import SitePage
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config.compose import compose
from healthfm_core.errors import PolicyError
from healthfm_core.federation.contracting import terms_before
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.privacy.ledger import Ledger, PrivacyLimits
from healthfm_core.trust.authority import Authority
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import Contract
from healthfm_core.trust.kit import install_kit, make_kit
from healthfm_core.trust.request import make_request, read_request
from healthfm_core.trust.site_keys import SiteKeys
from tests.page.page_client import served
from tests.tokens.small_store import write

URL = "https://study.example.org:8443"
EVIL = "<script>alert(1)</script>"
TRICK = "ok\u202egnp.exe\n\x1b[31m"
"""Text that shows in another order, as another line, in another colour."""
STATED = {
    "run": "first",
    "purpose": "To foresee admissions of people with heart failure",
    "protocol": "EK 2026/114",
    "contact": "Dr Meier, +41 44 000 00 00",
    "task": "Admission within 30 days",
}
RUNNING = {"node": "RUNNING pid 1", "worker": "RUNNING pid 2"}
POLICY = """require_approval: true
k_min: 3
privacy: {epsilon: 3, delta: 1.0e-5, epsilon_max: 30, ledger: ledger.jsonl}
"""


def make_site(folder, *, kit=True, joined=True):
    """Return a site's folder; the study's authority is beside it."""
    home = SiteHome(folder / "north")
    keys = SiteKeys.create(home.keys)
    home.begin("north", URL, ["ehr"])
    home.request.write_bytes(make_request(keys, "north", URL, ["ehr"]))
    home.policy.write_text(POLICY)
    authority = Authority.create(folder / "authority", "heart")
    rows = [(s, 10.0 * s, code, None) for s in range(1, 9) for code in ("DX//A", "DX//B")]
    write(folder / "stores" / "clinic", rows)
    if kit:
        words = authority.fingerprint
        install_kit(kit_for(home, authority), home.study, keys, root_fingerprint=words)
    if joined:
        home.settings_file.write_text(f"stores: [{{path: {folder / 'stores' / 'clinic'}}}]\n")
        home.process.mkdir()
    return home


def kit_for(home, authority):
    """Return the kit that an authority makes for a site's request."""
    request = read_request(home.request.read_bytes())
    return make_kit(authority, request, url=URL, node_id=7)


def contract(run="0" * 16, stated=None, *words):
    config = compose(["model=tiny", "tokens.k_min=3", "federation.rounds=4", *words])
    now, told = now_utc(), STATED if stated is None else stated
    return Contract(
        "heart", terms_before(run, config), now, now + timedelta(days=9), statement=told
    )


def ask(home, asked=None, now=None):
    """Let a run ask, as the worker does."""
    asked = contract() if asked is None else asked
    policy = SitePolicy.read(home.policy)
    stores = (StoreSpec(home.path.parent / "stores" / "clinic", ("ehr",)),)
    try:
        home.approvals().check(asked, lambda: run_facts(asked, policy, stores, home.kit()), now)
    except PolicyError as refused:
        return refused.number
    return 0


def add_lines(home, count=3):
    """Let answers leave."""
    array = {"type": "<f4", "shape": [4, 4], "bytes": 64, "sha256": "ab" * 32}
    for number in range(1, count + 1):
        records = {
            "arrays": {"arrays": {"backbone/a": array}, "bytes": 64, "sha256": {}},
            "metrics": {"values": {"loss_codes": 1.5}, "bytes": 9, "sha256": "cd" * 32},
        }
        facts = {"run": "9", "round": str(number), "records": records, "bytes": 73}
        home.log().append("train", facts)
    refused = {"run": "9", "round": "x", "refused": 503, "reason": "nobody approved", "bytes": 0}
    home.log().append("query.statistics", refused)


def spend(home, runs=2):
    """Let runs spend privacy, a year each."""
    at = {"s": datetime(2020, 3, 1).timestamp()}
    ledger = Ledger(home.path / "ledger.jsonl", clock=lambda: at["s"])
    for number in range(runs):
        for round_ in (1, 2):
            mechanism, limits = Mechanism(8.0, 0.05, 10), PrivacyLimits(1e-5, 3.0, 30.0)
            about = (f"{number:016x}", f"run-{number}", round_)
            reserved = ledger.reserve(*about, mechanism, limits)
            ledger.spend(reserved, 10)
            at["s"] += 180 * 86400.0


def connect(home, at=None, since=None):
    """Note that the study answered, as the node does."""
    at = now_utc() if at is None else at
    said = {"at": at.isoformat(), "since": (since or at).isoformat()}
    (home.process / "answered.json").write_text(json.dumps(said))


@contextmanager
def served_site(home, processes=None):
    """Serve the page of a site on loopback, as its process does."""
    page = SitePage(home)
    if processes is not None:
        page.view.processes = lambda now=False: processes
    try:
        with served(page, page.pages.live) as asking:
            yield asking
    finally:
        page.view.close()
