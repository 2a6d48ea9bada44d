"""What lists of contacts and cohorts are asked for: parameters read, every fault named with its parameter. Pure.

The parameters are those of the API, the console's URL and the command line alike.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

from storage.postgres.cohorts import MAX_WINDOW_DAYS, MAX_WINDOWS, WINDOW_DAYS, Bucket, CohortQuery
from storage.postgres.contact_filter import UTM, ContactFilter
from storage.postgres.reports.periods import day_begins, known_zones, read_moment
from storage.postgres.reports.query import Fault, Parameters, QueryRefused

DEFAULT_COHORT_DAYS = 180
MAX_COHORTS = 1000
MAX_VALUES = 1000
_BUCKET_DAYS = {"day": 1, "week": 7, "month": 28}
_TRUE = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_contacts(parameters: Parameters, timezone: str) -> ContactFilter:
    """Which contacts: list, from and to (when they came), has_converted, the first touch's utm_…; QueryRefused."""
    reader = _Reader(parameters)
    zone = reader.zone(timezone)
    found = reader.filter(zone)
    reader.finish()
    return found


def parse_cohorts(parameters: Parameters, now: datetime, timezone: str) -> CohortQuery:
    """Which cohorts: as of contacts, and cohort (day, week, month), windows, currency; QueryRefused.

    Without `from` those of the last 180 days, without `to` all until today.
    """
    reader = _Reader(parameters)
    zone = reader.zone(timezone)
    bucket = reader.bucket()
    windows = reader.windows()
    currencies = reader.many("currency")
    who = reader.filter(zone)
    tomorrow = day_begins(now.astimezone(zone).date() + timedelta(days=1), zone)
    until = who.joined_until or tomorrow
    # By the clock on the wall: the first day is a whole one, though clocks changed since.
    since = who.joined_since or (until.astimezone(zone) - timedelta(days=DEFAULT_COHORT_DAYS)).astimezone(UTC)
    if since >= until:
        reader.fault("to", "is before from")
    elif (until - since).days / _BUCKET_DAYS[bucket] > MAX_COHORTS:
        reader.fault("from", f"that would be more than {MAX_COHORTS} cohorts")
    reader.finish()
    return CohortQuery(who._replace(joined_since=since, joined_until=until), bucket, zone.key, windows, currencies)


class _Reader:
    """Reads one request's parameters, collecting faults."""

    def __init__(self, parameters: Parameters) -> None:
        self._faults: list[Fault] = []
        self._values: dict[str, list[str]] = {}
        for name, value in parameters:
            self._values.setdefault(name, []).append(value)

    def fault(self, name: str, text: str) -> None:
        self._faults.append(Fault(name, text))

    def finish(self) -> None:
        """QueryRefused if anything was wrong, or is left over."""
        for name in self._values:
            self.fault(name[:100], "there is no such parameter")
        if self._faults:
            raise QueryRefused(self._faults)

    def one(self, name: str) -> str:
        """The parameter's value, "" if it is absent."""
        found = self._values.pop(name, [])
        if len(found) > 1:
            self.fault(name, "is given more than once")
        return found[0] if found else ""

    def many(self, name: str) -> tuple[str, ...]:
        """All values of a parameter; "" among them is "none"."""
        found = tuple(dict.fromkeys(self._values.pop(name, [])))
        if len(found) > MAX_VALUES:
            self.fault(name, f"{len(found)} values are too many: at most {MAX_VALUES}")
        if not all(map(_is_text, found)):
            self.fault(name, "has a character that no text has")
        return found

    def zone(self, default: str) -> ZoneInfo:
        name = self.one("timezone")
        if name and name not in known_zones():
            self.fault("timezone", f"{name[:60]!a} is no time zone: write it like Europe/Berlin")
            name = ""
        return ZoneInfo(name or default)

    def filter(self, zone: ZoneInfo) -> ContactFilter:
        since, until = self._moment("from", zone), self._moment("to", zone)
        utm = {name: values for name in UTM if (values := self.many(name))}
        return ContactFilter(self.many("list"), since, until, self._has_converted(), utm)

    def bucket(self) -> Bucket:
        text = self.one("cohort") or "month"
        for known in get_args(Bucket):
            if text == known:
                return known  # type: ignore[no-any-return]
        self.fault("cohort", f"{text[:60]!a} is none of {', '.join(get_args(Bucket))}")
        return "month"

    def windows(self) -> tuple[int, ...]:
        """Numbers of days, separated by commas."""
        text = self.one("windows")
        if not text:
            return WINDOW_DAYS
        parts = [part.strip() for part in text.split(",")]
        days = sorted({int(part) for part in parts if _is_number(part) and 1 <= int(part) <= MAX_WINDOW_DAYS})
        if not all(_is_number(part) and 1 <= int(part) <= MAX_WINDOW_DAYS for part in parts) or len(days) > MAX_WINDOWS:
            self.fault(
                "windows", f"allowed are up to {MAX_WINDOWS} numbers of days from 1 to {MAX_WINDOW_DAYS}: 7,30,90"
            )
            return WINDOW_DAYS
        return tuple(days)

    def _moment(self, name: str, zone: ZoneInfo) -> datetime | None:
        text = self.one(name)
        moment = read_moment(text, zone, is_end=name == "to") if text else None
        if text and moment is None:
            said = f"{text[:60]!a} is no date (2026-10-31) and no time with offset (2026-10-31T12:00:00Z)"
            self.fault(name, said)
        return moment.astimezone(UTC) if moment else None

    def _has_converted(self) -> bool | None:
        text = self.one("has_converted")
        if text and text not in _TRUE:
            self.fault("has_converted", f"{text[:60]!a} is neither true nor false")
        return _TRUE.get(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, from bytes that are no UTF-8
        return False
    return "\0" not in text


def split_paging(parameters: Parameters, names: Iterable[str]) -> tuple[dict[str, str], Parameters]:
    """The first value of each of those names ("": none), and all parameters of other names. QueryRefused: one is there twice."""
    found: dict[str, str] = {}
    faults = []
    rest = []
    wanted = set(names)
    for name, value in parameters:
        if name not in wanted:
            rest.append((name, value))
        elif name in found:
            faults.append(Fault(name, "is given more than once"))
        else:
            found[name] = value
    if faults:
        raise QueryRefused(faults)
    return {name: found.get(name, "") for name in wanted}, rest
