"""The time that a report covers, and the time before that it is compared with. Pure."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import msgspec

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_HOUR = timedelta(hours=1)
_FIRST_YEAR, _LAST_YEAR = 2000, 2100


class Period(msgspec.Struct, frozen=True):
    """From one instant to before another, in UTC; days and hours are those of `timezone`."""

    starts_at: datetime
    ends_at: datetime
    timezone: str = "UTC"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def is_whole_days(self) -> bool:
        """Whether it begins and ends at midnights of its zone."""
        return all(
            day_begins(at.astimezone(self.zone).date(), self.zone) == at for at in (self.starts_at, self.ends_at)
        )

    @property
    def is_whole_hours(self) -> bool:
        """Whether it begins and ends with hours of UTC."""
        return all(at == at.replace(minute=0, second=0, microsecond=0) for at in (self.starts_at, self.ends_at))

    @property
    def has_whole_hour_offsets(self) -> bool:
        """Whether the zone's hours are those of UTC all the time: else rows by hour do not fit its days."""
        return all(_is_whole(at.astimezone(self.zone).utcoffset()) for at in self._instants())

    @property
    def first_day(self) -> date:
        return self.starts_at.astimezone(self.zone).date()

    @property
    def days_after(self) -> date:
        """The first day that begins at its end or later."""
        local = self.ends_at.astimezone(self.zone)
        is_midnight = day_begins(local.date(), self.zone) >= self.ends_at
        return local.date() if is_midnight else local.date() + timedelta(days=1)

    @property
    def id_range(self) -> tuple[UUID, UUID]:
        """The click ids of its milliseconds lie from the first to before the second."""
        return lowest_id(self.starts_at), lowest_id(self.ends_at + timedelta(milliseconds=1))

    def previous(self, now: datetime) -> "Period":
        """The time of the same length before it, by the zone's days; of one that is not over as much as has passed."""
        zone = self.zone
        start, end = (at.astimezone(zone).replace(tzinfo=None) for at in (self.starts_at, self.ends_at))
        until = min(max(now, self.starts_at), self.ends_at).astimezone(zone).replace(tzinfo=None)
        shift = end - start
        if self.is_whole_days:
            shift = timedelta(days=(end.date() - start.date()).days)
        starts_at, ends_at = (_instant(local - shift, zone) for local in (start, until))
        return Period(starts_at, max(ends_at, starts_at), self.timezone)

    def _instants(self) -> Iterator[datetime]:
        at = self.starts_at
        while at < self.ends_at:
            yield at
            at += timedelta(days=1)
        yield self.ends_at


def lowest_id(at: datetime) -> UUID:
    """The lowest click id that this millisecond may have."""
    ms = int(at.timestamp() * 1000) if at.microsecond else int(at.timestamp()) * 1000
    return UUID(int=max(0, ms) << 80)


@cache
def known_zones() -> frozenset[str]:
    """The names of all time zones that Python knows; read from disk once."""
    return frozenset(available_timezones())


def day_begins(day: date, zone: tzinfo) -> datetime:
    """The instant in UTC."""
    return _instant(datetime.combine(day, time()), zone)


def read_moment(text: str, zone: tzinfo, *, is_end: bool) -> datetime | None:
    """A date's beginning (`is_end`: the next day's), or the time that names its offset, in UTC; None for anything else."""
    if len(text) > 11 and text[10] == "T" and text[-6:-5] == " ":
        text = text[:-6] + "+" + text[-5:]  # a `+` that nobody encoded in a URL
    try:
        if _DATE.fullmatch(text):
            day = date.fromisoformat(text)
            found = day_begins(day + timedelta(days=is_end), zone)
        else:
            day = found = datetime.fromisoformat(text)
            if found.tzinfo is None:
                return None
            found = found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if _FIRST_YEAR <= day.year <= _LAST_YEAR else None


def _instant(local: datetime, zone: tzinfo) -> datetime:
    return local.replace(tzinfo=zone).astimezone(UTC)


def _is_whole(offset: timedelta | None) -> bool:
    return offset is None or not offset % _HOUR
