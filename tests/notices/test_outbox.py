"""A notice is told once, after it has held for long enough, and not lost by failures or kills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from healthfm_core.errors import RunError, TrustError
from healthfm_core.notices import watch
from healthfm_core.notices.notice import Notice
from healthfm_core.notices.notice_settings import NoticeSettings
from healthfm_core.notices.outbox import AGAIN_S, GIVEN_UP_S, PAUSES_S, Outbox
from healthfm_core.notices.watch import FILE, look_once

START = datetime(2026, 11, 24, tzinfo=UTC)
ASKS = Notice("asks 1", "asks", "run first asks", "Run first asks.")
STALLED = Notice("connection", "stalled", "not connected", "No way.", wait_s=1800.0)
ENDED = Notice("run old finished", "ended", "run old has finished", "Run old has finished.")
SETTINGS = NoticeSettings(desktop=True)


class Told:
    """The desktop, as far as the loop knows, on a clock of its own."""

    def __init__(self, monkeypatch, folder) -> None:
        self.subjects: list[str] = []
        self.works = True
        self.seconds = 0.0
        self.folder = folder
        monkeypatch.setattr(watch, "senders", lambda settings, origin: {"desktop": self._send})

    def _send(self, notice, at) -> None:
        if not self.works:
            raise RunError(728, where="notices.desktop", seen="no display")
        self.subjects.append(notice.subject)

    def after(self, seconds, *held, settings=SETTINGS):
        """Look at what holds so much later; return all that was told so far."""
        self.seconds += seconds
        now = START + timedelta(seconds=self.seconds)
        look_once(settings, lambda _: held, self.folder, "HealthFM at a", now)
        return self.subjects


@pytest.fixture
def told(monkeypatch, tmp_path):
    return Told(monkeypatch, tmp_path)


def test_what_holds_is_told_once(told):
    for _ in range(3):
        assert told.after(5, ASKS) == [ASKS.subject]


def test_what_had_ended_before_anyone_asked_is_not_told(told):
    assert told.after(0, ENDED, ASKS) == [ASKS.subject]
    newer = Notice("run new finished", "ended", "run new has finished", "It has.")
    assert told.after(5, ENDED, newer) == [ASKS.subject, newer.subject]


def test_what_stands_still_is_told_when_it_has_lasted(told):
    assert told.after(0, STALLED) == []
    assert told.after(1799, STALLED) == []
    assert told.after(0) == [], "it goes on: nothing is told, and the clock begins anew"
    assert told.after(60, STALLED) == []
    assert told.after(1799, STALLED) == []
    assert told.after(1, STALLED) == [STALLED.subject]


def test_what_comes_and_goes_does_not_fill_a_mailbox(told):
    told.after(0, ASKS)
    for _ in range(5):
        told.after(60)
        assert told.after(60, ASKS) == [ASKS.subject]
    told.after(AGAIN_S)
    assert told.after(60, ASKS) == [ASKS.subject] * 2


def test_a_channel_that_fails_is_tried_again_with_pauses_and_given_up_in_the_end(told):
    told.works = False
    told.after(0, ASKS)
    told.works = True
    assert told.after(PAUSES_S[0] - 1, ASKS) == []
    assert told.after(1, ASKS) == [ASKS.subject]
    told.works = False
    late = Notice("asks 2", "asks", "run late asks", "Run late asks.")
    told.after(0, late)
    told.after(GIVEN_UP_S + 1, late)
    told.works = True
    assert told.after(PAUSES_S[-1] + 1, late) == [ASKS.subject]


def test_what_is_not_delivered_yet_goes_on_though_it_holds_no_more(told):
    told.works = False
    told.after(0, ASKS)
    told.works = True
    assert told.after(PAUSES_S[0]) == [ASKS.subject]


def test_one_channel_that_fails_keeps_nothing_from_the_other_and_gets_it_once(tmp_path):
    box, took, works = Outbox(tmp_path / FILE), [], []

    def never(notice, at):
        took.append("never")
        if not works:
            raise RunError(728, where="here", seen="no")

    def ever(notice, at):
        took.append("ever")

    box.take([ASKS], ("never", "ever"), START)
    box.deliver({"never": never, "ever": ever}, START)
    assert took == ["never", "ever"]
    again = Outbox.read(tmp_path / FILE)
    assert again is not None, "what was taken is on disk before the next is tried"
    works.append(True)
    again.deliver({"never": never, "ever": ever}, START + timedelta(hours=1))
    assert took == ["never", "ever", "never"]


def test_only_kinds_that_were_chosen_are_told_and_nothing_without_a_channel(told):
    chosen = NoticeSettings(desktop=True, kinds=("budget",))
    assert told.after(0, ASKS, settings=chosen) == []
    assert told.after(0, ASKS, settings=NoticeSettings()) == []
    assert told.after(0, ASKS) == [ASKS.subject]


def test_a_damaged_file_is_said(tmp_path):
    (tmp_path / FILE).write_text('{"x": {"notice": {}}}')
    with pytest.raises(TrustError, match=r"HF-802.*notices.json"):
        Outbox.read(tmp_path / FILE)


def test_the_list_says_what_was_told_and_what_is_not_delivered(told, tmp_path):
    told.after(0, ASKS)
    told.works = False
    told.after(60, ASKS, Notice("b", "alarm", "the disk is full", "It is."))
    box = Outbox.read(tmp_path / FILE)
    assert box is not None
    first, second = box.lines()
    assert first.startswith("2026-11-24 00:01Z the disk is full; not delivered by desktop: ")
    assert "no display" in first
    assert second == "2026-11-24 00:00Z run first asks"


def test_what_is_kept_is_for_its_owner_alone(told, tmp_path):
    told.after(0, ASKS)
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
