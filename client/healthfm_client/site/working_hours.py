"""When a site works: hours by its own clock and time zone, over midnight too."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field

from healthfm_core.config.base import Schema

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _time_of_day(value: Any) -> Any:
    """Take what YAML makes of an unquoted 20:00, which is the number of minutes 1200."""
    if isinstance(value, int) and 0 <= value < 24 * 60:
        return time(value // 60, value % 60)
    if isinstance(value, str):
        return time.fromisoformat(value)
    if isinstance(value, time):
        return value
    raise ValueError("a time of day is written 20:00")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("no such time zone; write it as Europe/Vienna") from error
    return name


TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]
Zone = Annotated[str, AfterValidator(_zone)]


class WorkingHours(Schema):
    """A stretch of hours on some days; one that ends before it begins goes over midnight."""

    days: tuple[Day, ...] = Field(DAYS, min_length=1, description="days on which it begins")
    start: TimeOfDay = Field(description="first minute, as 20:00")
    end: TimeOfDay = Field(description="first minute after it; the same as start: a whole day")

    def hold(self, local: datetime) -> bool:
        """Whether `local`, a time in the site's zone, is in the stretch."""
        now = local.time().replace(tzinfo=None)
        today = DAYS[local.weekday()] in self.days
        if self.start < self.end:
            return today and self.start <= now < self.end
        yesterday = DAYS[(local - timedelta(days=1)).weekday()] in self.days
        return (today and now >= self.start) or (yesterday and now < self.end)


def is_working_time(hours: tuple[WorkingHours, ...], zone: str, now: datetime) -> bool:
    """Whether a site works at `now`; without hours it always does."""
    local = now.astimezone(ZoneInfo(zone))
    return not hours or any(stretch.hold(local) for stretch in hours)
