"""What the command ``notices`` says and tries; the same at a site and at the coordinator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from healthfm_core.errors import ConfigError
from healthfm_core.notices.channels import senders
from healthfm_core.notices.notice import Notice
from healthfm_core.notices.notice_settings import NoticeSettings
from healthfm_core.notices.outbox import Outbox
from healthfm_core.notices.watch import FILE


def told_lines(settings: NoticeSettings, folder: Path) -> Iterator[str]:
    """Yield how people are told, and what they were told, a line each.

    Raises:
        TrustError: What was told is damaged (HF-802).
    """
    channels = ", ".join(settings.channels)
    yield (
        f"by {channels}: {', '.join(settings.kinds)}" if channels else "nobody is told: no channel"
    )
    outbox = Outbox.read(folder / FILE)
    yield from () if outbox is None else outbox.lines()


def try_channels(settings: NoticeSettings, origin: str, file: str) -> Iterator[str]:
    """Send a notice that says it is a test through every channel; yield a line for each.

    Args:
        settings: The channels.
        origin: Which study or site tells it.
        file: Where the settings are, for the error.

    Raises:
        ConfigError: No channel is set (HF-103).
        RunError: One did not take it (HF-728); those after it were not tried.
    """
    if not settings.channels:
        raise ConfigError(
            103,
            where=f"{file}, notices",
            seen="no channel is set",
            wanted="notices.email, notices.webhook or notices.desktop",
            do=f"Add one to {file}",
        )
    now = datetime.now(UTC)
    text = "This is a test, sent by hand. Notices of what happens come the same way."
    for channel, send in senders(settings, origin).items():
        send(Notice(f"test {now:%Y%m%dT%H%M%S}", "alarm", "a test of the notices", text), now)
        yield f"{channel}: taken"
