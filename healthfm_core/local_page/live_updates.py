"""Parts of a page that change while it is looked at, sent as server-sent events.

A part is HTML that was escaped when it was rendered. It is rendered once a second at most, however
many look, and sent to whoever has an older one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.concurrency import run_in_threadpool

TICK_S: Final = 1.0
ALIVE_S: Final = 15.0
"""After so long without news a comment is sent: whoever is between keeps the connection."""
MOST_STREAMS: Final = 64


@dataclass(frozen=True)
class Part:
    """One part of a page.

    Attributes:
        id: Of the element that holds it.
        html: What is in it.
    """

    id: str
    html: str

    @property
    def digest(self) -> str:
        """Tells one content from another."""
        return hashlib.sha256(self.html.encode()).hexdigest()[:16]


Render = Callable[[], Mapping[str, str]]
"""Returns element → HTML."""


class LivePages:
    """Renders what is looked at, and sends what changed.

    Attributes:
        streams: How many are open.
        is_over: Asked each time; when true every stream ends, as the server does.
    """

    def __init__(self) -> None:
        self.is_over: Callable[[], bool] = lambda: False
        self._known: dict[str, tuple[float, list[Part]]] = {}
        self._lock = threading.Lock()
        self.streams = 0

    def parts(self, key: str, render: Render) -> list[Part]:
        """Return the parts of a page as they were within the last second.

        Args:
            key: Names the page and whom it is for.
            render: Makes them.
        """
        with self._lock:
            at, parts = self._known.get(key, (0.0, []))
            if not parts or time.monotonic() - at >= TICK_S:
                parts = [Part(name, html) for name, html in render().items()]
                self._known = {
                    other: found
                    for other, found in self._known.items()
                    if time.monotonic() - found[0] < ALIVE_S
                }
                self._known[key] = time.monotonic(), parts
            return parts

    async def events(
        self, key: str, render: Render, goes_on: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Yield an event for each part that is new, for ever.

        Args:
            key: Names the page and whom it is for.
            render: Makes its parts.
            goes_on: Asked each time; when false, whoever looks may not any more.
        """
        self.streams += 1
        try:
            sent: dict[str, str] = {}
            said_at = time.monotonic()
            while not self.is_over() and await run_in_threadpool(goes_on):
                for part in await run_in_threadpool(self.parts, key, render):
                    if sent.get(part.id) != part.digest:
                        sent[part.id] = part.digest
                        said_at = time.monotonic()
                        yield as_event(part)
                if time.monotonic() - said_at > ALIVE_S:
                    said_at = time.monotonic()
                    yield b": still here\n\n"
                await asyncio.sleep(TICK_S)
            if not self.is_over():
                yield b"event: over\ndata: {}\n\n"
        finally:
            self.streams -= 1


def as_event(part: Part) -> bytes:
    """Return a part as an event."""
    data = json.dumps({"id": part.id, "digest": part.digest, "html": part.html})
    return f"data: {data}\n\n".encode()
