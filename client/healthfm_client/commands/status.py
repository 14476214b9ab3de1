"""``status``: how this site stands with its study, without asking anyone."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any, Final

from healthfm_client.commands import takes_site
from healthfm_client.egress.egress_log import EgressLog
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.runtime.certificate_renewal import renews_from
from healthfm_client.runtime.refused_connection import RefusedConnection
from healthfm_client.runtime.site_supervision import supervision
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_client.site.working_hours import is_working_time
from healthfm_core.command_line import Command
from healthfm_core.stdout import say
from healthfm_core.trust import fingerprint
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.chained_log import Entry
from healthfm_core.trust.site_keys import SiteKeys

FOR_PROGRAMS: Final = frozenset({"root_fingerprint", "own_fingerprint", "signing_key"})
"""Facts of ``--json`` that a person reads in words."""


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    takes_site(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(given: Namespace) -> int:
    """Say it."""
    facts = status(SiteHome(given.site))
    if given.json:
        say(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            if name in FOR_PROGRAMS:
                continue
            say(f"{name.replace('_', ' '):<20} {_shown(value)}")
    return 0


def status(home: SiteHome) -> dict[str, Any]:
    """Return how the site stands.

    Raises:
        TrustError: It has no kit (HF-830), its keys cannot be used (HF-802), or its log was changed
            (HF-822).
        ConfigError: Its policy cannot be used (HF-1xx).
    """
    kit, policy = home.kit(), SitePolicy.read(home.policy)
    supervisor, keys = supervision(home), SiteKeys.load(home.keys)
    last, left, refused = _last_of(home.log())
    stopped = RefusedConnection.recent(home)
    return {
        "site": kit.site,
        "study": kit.study,
        "server": kit.url,
        "root_words": kit.root_words,
        "root_fingerprint": kit.root_fingerprint,
        "own_words": fingerprint.in_words(fingerprint.of_key(keys.tls.public_key())),
        "own_fingerprint": fingerprint.of_key(keys.tls.public_key()),
        "signing_words": fingerprint.in_words(fingerprint.of_key(keys.signing.public_key())),
        "signing_key": fingerprint.of_key(keys.signing.public_key()),
        "certificate_until": f"{kit.certificate.not_valid_after_utc:%Y-%m-%d}",
        "certificate_renews_from": f"{renews_from(kit):%Y-%m-%d}",
        "state": home.state(),
        "works_at_this_hour": is_working_time(policy.hours, policy.timezone, now_utc()),
        "processes_run": supervisor.config.exists() and supervisor.runs(),
        "runs_without_noise": _unprotected(policy.privacy),
        "runs_waiting": sum(asked.answer == "waiting" for asked in home.approvals()),
        "connection_refused": None if stopped is None else f"{stopped.at[:19]} {stopped.reason}",
        "last_left": None if left is None else f"{left['at'][:19]} {left['what']}",
        "last_refused": None
        if refused is None
        else f"{refused['at'][:19]} {refused['what']}: {refused['refused']}",
        "lines_in_log": 0 if last is None else last["n"],
    }


def _last_of(log: EgressLog) -> tuple[Entry | None, Entry | None, Entry | None]:
    """Return a log's last line, the last of what left, and the last of what was refused."""
    last = left = refused = None
    for last in log.entries():
        if "refused" in last:
            refused = last
        elif "bytes" in last:
            left = last
    return last, left, refused


def _unprotected(rules: SitePrivacy) -> str | None:
    ledger = rules.open_ledger()
    bare = 0 if ledger is None else sum(e.event == "unprotected" for e in ledger.entries())
    return f"{bare}: no ε covers them; see healthfm-client privacy" if bare else None


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "nothing" if value is None else str(value)


COMMAND = Command("show this site's state in its study", run, arguments)
