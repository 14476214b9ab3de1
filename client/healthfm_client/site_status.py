"""How a site stands with its study, without asking anyone: what ``status`` and the page tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal

from healthfm_client.egress.egress_log import EgressLog
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.runtime.certificate_renewal import renews_from
from healthfm_client.runtime.refused_connection import RefusedConnection
from healthfm_client.runtime.site_supervision import supervision
from healthfm_client.runtime.study_answers import StudyAnswers
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_client.site.working_hours import is_working_time
from healthfm_core.trust import fingerprint
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.chained_log import Entry
from healthfm_core.trust.kit import Kit
from healthfm_core.trust.names import plain_text
from healthfm_core.trust.site_keys import SiteKeys

Stage = Literal["requested", "admitted", "joined"]
Connected = Literal["connected", "silent", "refused", "stopped", "left", "not joined"]
STAGES: Final = ("requested", "admitted", "joined")
CONNECTED: Final = ("connected", "silent", "refused", "stopped", "left", "not joined")
NEWEST: Final = 10_000
"""Lines of the log that are looked at for the last of a kind."""
OF_A_KIT: Final = (
    *("server", "root_words", "root_fingerprint", "certificate_until", "certificate_renews_from"),
)


_NOT_JOINED: Final[dict[str, tuple[str, str]]] = {
    "requested": (
        "This site has made its request and has no kit yet",
        "With the kit that the coordinator sends: healthfm-client enroll --kit FILE --root WORDS",
    ),
    "admitted": (
        "This site has its kit and does not take part yet",
        "Take part: healthfm-client join --store STORE",
    ),
}


@dataclass(frozen=True)
class StudyConnection:
    """Whether a site is connected, and if not, why and what to do.

    Attributes:
        state: In a word.
        sentence: In a sentence without its full stop.
        do: What to do about it; empty where all is well.
        since: Since when it is connected, or was last answered, ISO 8601 in UTC; empty: never.
    """

    state: Connected
    sentence: str
    do: str = ""
    since: str = ""


def stage_of(home: SiteHome) -> Stage:
    """Return how far a site that has keys has come: request sent, kit here, joined."""
    if not home.has_kit():
        return "requested"
    return "joined" if home.settings_file.is_file() else "admitted"


def processes_of(home: SiteHome) -> dict[str, str]:
    """Return the site's processes in their supervisor's words; empty where it does not run."""
    supervisor = supervision(home)
    return supervisor.states() if supervisor.config.exists() else {}


def connection_of(
    home: SiteHome, processes: Mapping[str, str], now: datetime | None = None
) -> StudyConnection:
    """Return whether the site is connected.

    Args:
        home: The site.
        processes: From `processes_of`.
        now: The time.
    """
    if home.state() == "left":
        do = "To take part again: healthfm-client resume, then healthfm-client join"
        return StudyConnection("left", "This site has left the study", do)
    if (stage := stage_of(home)) != "joined":
        return StudyConnection("not joined", *_NOT_JOINED[stage])
    if not processes:
        do = "Start them: healthfm-client join"
        return StudyConnection("stopped", "This site's processes do not run", do)
    now = now or now_utc()
    answers, refused = StudyAnswers.read(home.process), RefusedConnection.recent(home, now)
    at = "" if answers is None else answers.at.isoformat(timespec="seconds")
    if refused is not None and refused.at > at:
        seen = f"The study does not let this site in: {plain_text(refused.reason)}"
        return StudyConnection("refused", seen, "It is tried again by itself", at)
    if answers is not None and answers.is_recent(now):
        since = answers.since.isoformat(timespec="seconds")
        return StudyConnection("connected", "This site is connected to the study", "", since)
    looping = [state for state in processes.values() if not state.startswith("RUNNING")]
    seen = looping[0] if looping else "the study does not answer"
    do = "Ask the doctor what stands in the way; it is tried again by itself"
    return StudyConnection("silent", f"This site is not connected: {seen}", do, at)


def site_status(home: SiteHome, processes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return how the site stands, as values that JSON takes.

    Args:
        home: The site, which has keys.
        processes: From `processes_of`, where somebody asked just now.

    Raises:
        TrustError: Its keys cannot be used (HF-802), or its log was cut (HF-822).
        ConfigError: Its policy cannot be used (HF-1xx).
    """
    processes = processes_of(home) if processes is None else processes
    policy, keys = SitePolicy.read(home.policy), SiteKeys.load(home.keys)
    left, refused = _last_of(home.log())
    stopped, asked = RefusedConnection.recent(home), list(home.approvals())
    waiting = [one for one in asked if one.answer == "waiting"]
    return {
        **_names(home, home.kit() if home.has_kit() else None),
        "own_words": fingerprint.in_words(fingerprint.of_key(keys.tls.public_key())),
        "own_fingerprint": fingerprint.of_key(keys.tls.public_key()),
        "signing_words": fingerprint.in_words(fingerprint.of_key(keys.signing.public_key())),
        "signing_key": fingerprint.of_key(keys.signing.public_key()),
        "stage": stage_of(home),
        "state": home.state(),
        "works_at_this_hour": is_working_time(policy.hours, policy.timezone, now_utc()),
        "processes_run": bool(processes),
        "processes": dict(processes),
        "connection": asdict(connection_of(home, processes)),
        "runs_without_noise": _unprotected(policy.privacy),
        "runs_waiting": len(waiting),
        "waiting": [
            {"run": one.run, "name": one.called, "study": one.study, "since": one.since}
            for one in waiting
        ],
        "connection_refused": None
        if stopped is None
        else f"{stopped.at[:19]} {plain_text(stopped.reason)}",
        "last_left": None if left is None else f"{left['at'][:19]} {plain_text(left['what'])}",
        "last_refused": None
        if refused is None
        else f"{refused['at'][:19]} {plain_text(refused['what'])}: {refused['refused']}",
        "lines_in_log": home.log().length(),
    }


def _names(home: SiteHome, kit: Kit | None) -> dict[str, Any]:
    """Return who the site is: by its kit, or as it asked to be."""
    if kit is None:
        asked = home.enrolment()
        site, url = ("", "") if asked is None else (asked.site, asked.url)
        return {"site": site, "study": "", **dict.fromkeys(OF_A_KIT, ""), "server": url}
    return {
        "site": kit.site,
        "study": kit.study,
        "server": kit.url,
        "root_words": kit.root_words,
        "root_fingerprint": kit.root_fingerprint,
        "certificate_until": f"{kit.certificate.not_valid_after_utc:%Y-%m-%d}",
        "certificate_renews_from": f"{renews_from(kit):%Y-%m-%d}",
    }


def _last_of(log: EgressLog) -> tuple[Entry | None, Entry | None]:
    """Return the newest of what left and of what was refused, of `NEWEST` lines, without proof."""
    left = refused = None
    for entry in islice(log.newest(), NEWEST):
        if "refused" in entry:
            refused = refused or entry
        elif "bytes" in entry:
            left = left or entry
        if left and refused:
            break
    return left, refused


def _unprotected(rules: SitePrivacy) -> str | None:
    ledger = rules.open_ledger()
    bare = 0 if ledger is None else ledger.count("unprotected")
    return f"{bare}: no ε covers them; see healthfm-client privacy" if bare else None
