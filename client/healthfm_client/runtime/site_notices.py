"""What a site's people are told of, found in the site's own folder."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from healthfm_client.runtime.refused_connection import RefusedConnection
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.notices.notice import Notice
from healthfm_core.notices.notice_settings import NoticeSettings
from healthfm_core.notices.watch import watch
from healthfm_core.trust.certificates import now_utc

TOLD_BEFORE: Final = timedelta(days=30)
"""How long before its end a certificate is spoken of; it was to be renewed 60 days before."""
LOW: Final = 0.2
"""A share of the privacy budget; with less left people are told."""
PATIENCE_S: Final = 300.0


def look(home: SiteHome, settings: NoticeSettings) -> list[Notice]:
    """Return what holds now at a site.

    Raises:
        HealthFMError: The site's folder cannot be read.
    """
    found = [*_asks(home), *_stalls(home, settings), *_certificate(home, now_utc())]
    return found + (list(_budget(home)) if "budget" in settings.kinds else [])


def _asks(home: SiteHome) -> Iterator[Notice]:
    for asked in home.approvals():
        if asked.answer == "waiting":
            yield Notice(
                f"asks {asked.run} {asked.config_hash}",
                "asks",
                f"run {asked.called} asks for approval",
                f"Run {asked.called} of the study {asked.study} asks since {asked.since}, until "
                f"{asked.expires}. Nothing is computed for it before somebody here approves it. "
                f"Read what it would do: healthfm-client requests; then: healthfm-client approve "
                f"{asked.called}, or deny",
            )


def _stalls(home: SiteHome, settings: NoticeSettings) -> Iterator[Notice]:
    refused = RefusedConnection.recent(home)
    if refused is not None and home.state() == "open":
        yield Notice(
            "connection",
            "stalled",
            "the site does not reach its study",
            f"Since {settings.stalled_minutes:g} minutes and more: {refused.reason}. "
            "See: healthfm-client doctor",
            wait_s=60.0 * settings.stalled_minutes,
        )


def _certificate(home: SiteHome, now: datetime) -> Iterator[Notice]:
    ends = home.kit().certificate.not_valid_after_utc
    if ends - now < TOLD_BEFORE:
        yield Notice(
            f"certificate {ends:%Y-%m-%d}",
            "certificate",
            f"this site's certificate ends on {ends:%Y-%m-%d}",
            f"It was to be renewed by itself and is not. After {ends:%Y-%m-%d} this site cannot "
            "connect. See: healthfm-client doctor; the coordinator can send a new kit",
        )


def _budget(home: SiteHome) -> Iterator[Notice]:
    rules = SitePolicy.read(home.policy).privacy
    ledger = rules.open_ledger()
    if ledger is None or rules.epsilon_max is None or not ledger.path.exists():
        return
    state = ledger.path.stat()
    left, trouble = _left(str(home.policy.resolve()), state.st_mtime_ns, state.st_size)
    if trouble:
        yield Notice(
            f"ledger {state.st_mtime_ns}",
            "budget",
            "this site's privacy budget cannot be counted",
            f"{trouble}. Runs that add noise are refused meanwhile. See: healthfm-client privacy",
        )
    elif left < LOW * rules.epsilon_max:
        yield Notice(
            f"budget {rules.epsilon_max:g}",
            "budget",
            f"ε {left:.2f} of {rules.epsilon_max:g} is left of this site's privacy budget",
            f"Of privacy.epsilon_max {rules.epsilon_max:g} in site.yaml ε {left:.2f} is left; a "
            "round that would cost more is refused. See: healthfm-client privacy",
        )


@lru_cache(maxsize=1)
def _left(policy: str, changed: int, size: int) -> tuple[float, str]:
    """Return the ε that is left, or why it is not known.

    A process of its own counts it, since that loads PyTorch, and once for each state of the ledger:
    `changed` and `size` say which.
    """
    words = [sys.executable, "-m", "healthfm_client", "privacy", policy, "--json"]
    try:
        done = subprocess.run(words, capture_output=True, timeout=PATIENCE_S, check=True)
    except subprocess.CalledProcessError as error:
        return 0.0, error.stderr.decode(errors="replace").strip()[-300:]
    except subprocess.TimeoutExpired:
        return 0.0, f"counting it takes longer than {PATIENCE_S:g} s"
    return float(json.loads(done.stdout)["left"]), ""


def told_by(home: SiteHome) -> str:
    """Return what begins each notice's subject."""
    return f"HealthFM at {home.kit().site}"


def settings_of(home: SiteHome) -> NoticeSettings:
    """Return how a site's people are told; paths are those of its folder."""
    return SitePolicy.read(home.policy).notices.in_folder(home.path)


def tell_until(stopped: threading.Event, home: SiteHome) -> None:
    """Tell what happens at a site; its ``site.yaml`` may be changed meanwhile."""
    watch(
        lambda: settings_of(home),
        lambda settings: look(home, settings),
        home.path,
        told_by(home),
        stopped,
    )
