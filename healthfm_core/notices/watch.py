"""The loop that looks at what holds, and tells it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from healthfm_core.errors import HealthFMError
from healthfm_core.notices.channels import senders
from healthfm_core.notices.notice import Notice
from healthfm_core.notices.notice_settings import NoticeSettings
from healthfm_core.notices.outbox import Outbox

FILE: Final = "notices.json"
LOOK_S: Final = 5.0

Look = Callable[[NoticeSettings], Sequence[Notice]]

_log = logging.getLogger(__name__)


def look_once(
    settings: NoticeSettings, look: Look, folder: Path, origin: str, now: datetime
) -> None:
    """Look at what holds, note it, and deliver what is due; nothing where no channel is set.

    Args:
        settings: Of what to tell, and how.
        look: Says what holds now.
        folder: Where what was told is kept.
        origin: Which study or site tells it.
        now: The time, with its zone.

    Raises:
        HealthFMError: What holds cannot be found out.
        OSError: The folder cannot be written.
    """
    if not settings.channels:
        return
    held = [notice for notice in look(settings) if notice.kind in settings.kinds]
    outbox = Outbox.read(folder / FILE)
    if outbox is None:
        outbox = Outbox.begun(folder / FILE, held, now)
    before = dict(outbox.entries)
    outbox.take(held, settings.channels, now)
    outbox.deliver(senders(settings, origin), now)
    if outbox.entries != before or not outbox.file.exists():
        outbox.write()


def watch(
    read: Callable[[], NoticeSettings],
    look: Look,
    folder: Path,
    origin: str,
    stopped: threading.Event,
) -> None:
    """Look until it is stopped; what goes wrong is in the log, and the next look tries again.

    Args:
        read: Returns the settings as they are now: they may be changed at any time.
        look: Says what holds now.
        folder: Where what was told is kept.
        origin: Which study or site tells it.
        stopped: Once it is set, the look that is under way is the last.
    """
    trouble = ""
    while not stopped.is_set():
        try:
            look_once(read(), look, folder, origin, datetime.now(UTC))
            trouble = ""
        except (HealthFMError, OSError) as error:
            if str(error) != trouble:
                _log.warning("no notices for now: %s", error)
            trouble = str(error)
        stopped.wait(LOOK_S)
