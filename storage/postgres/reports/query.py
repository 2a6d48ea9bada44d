"""What a report is asked for: parameters read, every fault named with its parameter. Pure.

The parameters are those of the API, the console's URL and the command line alike; a filter is a parameter named as its
dimension, repeated for several values.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec

from storage.errors import StorageError
from storage.postgres.reports.dimensions import EXTRA, Dimension, Kind, find_dimension
from storage.postgres.reports.metrics import DEFAULT_METRICS, METRICS, Clicks
from storage.postgres.reports.periods import Period, day_begins, known_zones, read_moment
from storage.postgres.reports.viewer import Viewer

By = Literal["conversion", "click"]
Touch = Literal["last", "first", "linear", "time_decay", "position"]
Value = int | str | date | datetime
Parameters = Sequence[tuple[str, str]]

MAX_ROWS = 100_000
DEFAULT_ROWS = 1000
MAX_DIMENSIONS = 8
MAX_FILTER_VALUES = 1000
DEFAULT_DAYS = 7
_MAX_ID = 2**31 - 1
_MAX_OFFSET = 10**9
_DIGITS = re.compile(r"[0-9]{1,10}", re.ASCII)
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}", re.ASCII)


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with one parameter."""

    field: str
    text: str


class QueryRefused(StorageError):
    """The report cannot be asked for like this; nothing was looked up."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(f"{one.field}: {one.text}" for one in faults))


class NotYours(StorageError):
    """The filter asks for somebody else's rows: to this viewer there are none such."""

    def __init__(self, dimension: str) -> None:
        self.dimension = dimension
        super().__init__(f"there is no such {dimension}")


class ReportQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A report that can be run. `filters`: by dimension, the values that are let through."""

    dimensions: tuple[str, ...]
    metrics: tuple[str, ...]
    period: Period
    by: By = "conversion"
    clicks: Clicks = "valid"
    touch: Touch = "last"
    compare: bool = False
    filters: dict[str, tuple[Any, ...]] = {}
    sort: str = ""
    descending: bool = True
    limit: int = DEFAULT_ROWS
    offset: int = 0

    @property
    def fingerprint(self) -> str:
        """The same for all pages of one report, and for no other report."""
        whole = msgspec.json.encode(msgspec.structs.replace(self, limit=0, offset=0), order="sorted")
        return hashlib.blake2b(whole, digest_size=6).hexdigest()

    def cursor_at(self, offset: int) -> str:
        """The cursor of the page that begins with that row."""
        return base64.urlsafe_b64encode(f"{self.fingerprint}:{offset}".encode()).decode().rstrip("=")


def parse_query(parameters: Parameters, viewer: Viewer, now: datetime, timezone: str = "UTC") -> ReportQuery:
    """The query that the parameters ask for, on behalf of `viewer`. QueryRefused with all their faults; NotYours.

    `timezone`: where none is asked for.
    """
    return _Reader(parameters, viewer).read(now, timezone)


class _Reader:
    """Reads one request's parameters, collecting faults."""

    def __init__(self, parameters: Parameters, viewer: Viewer) -> None:
        self.faults: list[Fault] = []
        self._viewer = viewer
        self._values: dict[str, list[str]] = {}
        for name, value in parameters:
            self._values.setdefault(name, []).append(value)

    def read(self, now: datetime, timezone: str) -> ReportQuery:
        zone = self._zone(timezone)
        period = self._period(zone, now)
        by = self._choice("by", By, "conversion")
        clicks = self._choice("clicks", Clicks, "valid")
        touch = self._choice("touch", Touch, "last")
        if touch != "last" and self._viewer.own_rows:
            self._fault("touch", "other touches than the last may be others', which this key does not see")
        dimensions = self._names("dimensions", (), self._dimension, MAX_DIMENSIONS)
        shown = tuple(name for name in DEFAULT_METRICS if self._viewer.scope in METRICS[name].scopes)
        metrics = self._names("metrics", shown, self._metric, len(METRICS))
        sort, descending = self._sort(dimensions, metrics)
        compare, limit, cursor = self._compare(), self._limit(), self._one("cursor")
        query = ReportQuery(
            dimensions=dimensions,
            metrics=metrics,
            period=period,
            by=by,
            clicks=clicks,
            touch=touch,
            compare=compare,
            filters=self._filters(zone),  # whatever parameters are left
            sort=sort,
            descending=descending,
            limit=limit,
        )
        offset = self._offset(cursor, query)
        if self.faults:
            raise QueryRefused(self.faults)
        for name, own in self._viewer.own_rows.items():
            if own not in query.filters.get(name, (own,)):
                raise NotYours(name)
        return msgspec.structs.replace(query, offset=offset)

    def _fault(self, name: str, text: str) -> None:
        self.faults.append(Fault(name, text))

    def _one(self, name: str) -> str:
        """The parameter's value, "" if it is absent."""
        found = self._values.pop(name, [])
        if len(found) > 1:
            self._fault(name, "is given more than once")
        return found[0] if found else ""

    def _choice(self, name: str, choices: Any, default: str) -> Any:
        value = self._one(name) or default
        if value not in get_args(choices):
            self._fault(name, f"{_shown(value)} is none of {', '.join(get_args(choices))}")
            return default
        return value

    def _zone(self, default: str) -> ZoneInfo:
        name = self._one("timezone")
        if name and name not in known_zones():
            self._fault("timezone", f"{_shown(name)} is no time zone: write it like Europe/Berlin")
            name = ""
        return ZoneInfo(name or default)

    def _period(self, zone: ZoneInfo, now: datetime) -> Period:
        today = now.astimezone(zone).date()
        starts_at = day_begins(today - timedelta(days=DEFAULT_DAYS - 1), zone)
        ends_at = day_begins(today + timedelta(days=1), zone)
        texts = {name: self._one(name) for name in ("from", "to")}
        for name, text in texts.items():
            if not text:
                continue
            moment = read_moment(text, zone, is_end=name == "to")
            if moment is None:
                self._fault(
                    name, f"{_shown(text)} is no date (2026-10-31) and no time with offset (2026-10-31T12:00:00Z)"
                )
            elif name == "from":
                starts_at = moment
            else:
                ends_at = moment
        if texts["from"] and not texts["to"] and starts_at >= ends_at:
            ends_at = max(ends_at, starts_at + timedelta(days=1))
        if texts["to"] and not texts["from"]:
            starts_at = day_begins(ends_at.astimezone(zone).date() - timedelta(days=DEFAULT_DAYS), zone)
        if starts_at >= ends_at and not any(fault.field in texts for fault in self.faults):
            self._fault("to", "is before from")
        return Period(starts_at, ends_at, zone.key)

    def _names(
        self, parameter: str, default: tuple[str, ...], check: Callable[[str], bool], limit: int
    ) -> tuple[str, ...]:
        text = self._one(parameter)
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if len(names) > limit:
            self._fault(parameter, f"{len(names)} are too many: at most {limit}")
            names = names[:limit]
        return tuple(name for name in names if check(name)) or default

    def _dimension(self, name: str) -> bool:
        if (found := find_dimension(name)) is None or self._viewer.scope not in found.scopes:
            self._fault("dimensions", f"there is no dimension {_shown(name)}")
            return False
        return True

    def _metric(self, name: str) -> bool:
        if (found := METRICS.get(name)) is None or self._viewer.scope not in found.scopes:
            self._fault("metrics", f"there is no metric {_shown(name)}")
            return False
        return True

    def _sort(self, dimensions: tuple[str, ...], metrics: tuple[str, ...]) -> tuple[str, bool]:
        text = self._one("sort")
        if not text:
            first_time = next((name for name in dimensions if (d := find_dimension(name)) and d.is_time), "")
            return first_time or (metrics[0] if metrics else ""), not first_time
        name = text.removeprefix("-")
        if name not in dimensions and name not in metrics:
            self._fault("sort", f"{_shown(name)} is no dimension and no metric of this report")
        return name, text.startswith("-")

    def _compare(self) -> bool:
        text = self._one("compare")
        if text not in ("", "none", "previous"):
            self._fault("compare", f"{_shown(text)} is none of previous, none")
        return text == "previous"

    def _limit(self) -> int:
        text = self._one("limit")
        if not text:
            return DEFAULT_ROWS
        if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MAX_ROWS:
            self._fault("limit", f"{_shown(text)} is not within 1 to {MAX_ROWS}; ask for the rest with cursor")
            return DEFAULT_ROWS
        return int(text)

    def _offset(self, text: str, query: ReportQuery) -> int:
        if not text:
            return 0
        try:
            fingerprint, _, offset = (
                base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").partition(":")
            )
        except ValueError:
            fingerprint = offset = ""
        if not _DIGITS.fullmatch(offset) or int(offset) > _MAX_OFFSET:
            self._fault("cursor", "is none that this report gave")
        elif fingerprint != query.fingerprint and not self.faults:
            self._fault("cursor", "is one of another report: ask without it")
        else:
            return int(offset)
        return 0

    def _filters(self, zone: ZoneInfo) -> dict[str, tuple[Any, ...]]:
        """What is left of the parameters."""
        filters = {}
        for name in list(self._values):
            texts = self._values.pop(name)
            found = find_dimension(name)
            if found is None or self._viewer.scope not in found.scopes:
                hint = f"; an extra parameter's filter is {EXTRA}…" if found is None and len(name) < 40 else ""
                self._fault(name[:100], f"there is no such parameter and no such dimension{hint}")
            elif len(texts) > MAX_FILTER_VALUES:
                self._fault(name, f"{len(texts)} values are too many: at most {MAX_FILTER_VALUES}")
            else:
                filters[name] = tuple(dict.fromkeys(self._filter_values(found, texts, zone)))
        return filters

    def _filter_values(self, dimension: Dimension, texts: Iterable[str], zone: ZoneInfo) -> Iterable[Value]:
        for text in texts:
            value = _read_value(dimension, text, zone)
            if value is None:
                self._fault(dimension.name, f"{_shown(text)} is no {_EXPECTED.get(dimension.kind, 'text')}")
            else:
                yield value


_EXPECTED = {
    "id": "id",
    "date": "date: write it 2026-10-31",
    "week": "date: write the week's Monday",
    "month": "month: write it 2026-10",
    "hour": "time with offset: write it 2026-10-31T12:00:00Z",
}


def _read_value(dimension: Dimension, text: str, zone: ZoneInfo) -> Value | None:
    """A filter's value, an empty one meaning none; Python's None for what cannot be one."""
    if dimension.kind == "text":
        return None if "\0" in text or not _is_text(text) else text
    if dimension.kind == "id":
        number = text.strip() or "0"
        return int(number) if _DIGITS.fullmatch(number) and int(number) <= _MAX_ID else None
    if dimension.kind == "hour":
        return None if len(text) <= len("2026-10-31") else read_moment(text, zone, is_end=False)
    day = f"{text}-01" if dimension.kind == "month" and _MONTH.fullmatch(text) else text
    moment = read_moment(day, UTC, is_end=False) if len(day) == len("2026-10-31") else None
    return _bucket(dimension.kind, moment.date()) if moment else None


def _bucket(kind: Kind, day: date) -> date:
    """The day that stands for its week or month."""
    if kind == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if kind == "week" else day


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, from bytes that are no UTF-8
        return False
    return True


def _shown(text: str) -> str:
    return ascii(text[:60])
