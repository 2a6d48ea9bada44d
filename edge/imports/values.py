"""Amounts and dates as people and spreadsheets write them. What could mean two things is refused, never guessed."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Literal, NamedTuple

DateOrder = Literal["", "mdy", "dmy"]
Mark = Literal["", ".", ","]

_CURRENCY = re.compile(
    r"^\s*(?P<before>[A-Za-z]{3}\b|[$€£¥])?\s*(?P<number>[-+(]?[0-9.,'\u2019\s]*[0-9)])\s*(?P<after>[A-Za-z]{3}|[$€£¥])?\s*$"
)
_SPACES = re.compile(r"[\s'\u2019]")
_PLAIN = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+", re.ASCII)
_GROUPED = re.compile(r"[0-9]{1,3}([.,][0-9]{3})+", re.ASCII)
MAX_DIGITS, MAX_DECIMALS = 12, 6
_MAX_CHARS = 64

_UNIX = re.compile(r"[0-9]{9,13}(\.[0-9]+)?", re.ASCII)
_ZONE_NAME = re.compile(r"\s*(UTC|GMT|Z)$")
_NUMERIC_DATE = re.compile(
    r"(?P<a>[0-9]{1,4})(?P<mark>[/.-])(?P<b>[0-9]{1,2})(?P=mark)(?P<c>[0-9]{1,4})(?P<rest>[ T,].*)?",
    re.ASCII | re.DOTALL,
)
_WORDY_DATE = re.compile(
    r"(?:[A-Za-z]{3,9},? )?(?:(?P<day>[0-9]{1,2})[ -](?P<month>[A-Za-z]{3,9})\.?[ ,-]{1,2}(?P<year>[0-9]{4})"
    r"|(?P<month2>[A-Za-z]{3,9})\.? (?P<day2>[0-9]{1,2}),? (?P<year2>[0-9]{4}))(?P<rest>[ ,].*)?",
    re.ASCII | re.DOTALL,
)
_CLOCK = re.compile(
    r"(?P<h>[0-9]{1,2}):(?P<m>[0-9]{2})(?::(?P<s>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
    r"\s*(?P<zone>UTC|GMT|Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class ValueFault(ValueError):
    """Why a value cannot be taken; the text is for whoever made the file."""


class Amount(NamedTuple):
    """An amount of money and the currency written beside it, if any."""

    value: Decimal
    currency: str = ""


class Span(NamedTuple):
    """When it was, from and to (exclusive) in Unix ms: a day that names no time is all of that day."""

    from_ms: int
    to_ms: int

    @property
    def is_day(self) -> bool:
        """Whether no time of the day was said."""
        return self.to_ms - self.from_ms > 3_600_000


class Calendar(NamedTuple):
    """How a file's dates are to be read. `zone`: of times that name none."""

    zone: tzinfo
    date_format: str = ""
    order: DateOrder = ""


def parse_money(text: str, mark: Mark = "") -> Amount:
    """`1,234.56`, `1.234,56`, `$12.50`, `12,50 EUR`; `mark`: what stands before the decimals, where it could be either."""
    found = _CURRENCY.match(text) if len(text) <= _MAX_CHARS else None
    if not found:
        raise ValueFault(f"{text[:40]!r} is no amount")
    number = _SPACES.sub("", found["number"])
    if number[0] in "-(" or number[-1] == ")":
        raise ValueFault(f"{text[:40]!r} is below zero: what is taken back has the status reversed")
    plain = _plain(number.removeprefix("+"), mark, text)
    if not _PLAIN.fullmatch(plain):
        raise ValueFault(f"{text[:40]!r} is no amount")
    whole, _, decimals = plain.partition(".")
    if len(whole.lstrip("0")) > MAX_DIGITS or len(decimals.rstrip("0")) > MAX_DECIMALS:
        raise ValueFault(f"{text[:40]!r} has more than {MAX_DIGITS} digits or {MAX_DECIMALS} decimals")
    word = found["before"] or found["after"] or ""
    return Amount(Decimal(plain), word.upper() if len(word) == 3 else "")


def _plain(number: str, mark: Mark, text: str) -> str:
    """With a decimal point and without separators of thousands."""
    if mark:
        other = "," if mark == "." else "."
        head, _, decimals = number.partition(mark)
        if other in decimals or mark in decimals or not _fits(head, other):
            raise ValueFault(f"{text[:40]!r} is no amount whose decimals follow {mark!r}")
        return head.replace(other, "") + (f".{decimals}" if decimals else "")
    if "," in number and "." in number:
        last: Mark = "," if number.rfind(",") > number.rfind(".") else "."
        return _plain(number, last, text)
    sign = "," if "," in number else "."
    if number.count(sign) > 1:
        if not _GROUPED.fullmatch(number):
            raise ValueFault(f"{text[:40]!r} is no amount")
        return number.replace(sign, "")
    head, found, decimals = number.partition(sign)
    if found and len(decimals) == 3 and 1 <= len(head) <= 3 and head.strip("0"):
        raise ValueFault(f"{text[:40]!r} may mean two amounts: say --decimal . or --decimal ,")
    return number.replace(",", ".")


def _fits(head: str, separator: str) -> bool:
    return not head or separator not in head or bool(_GROUPED.fullmatch(head))


def find_order(texts: Iterable[str]) -> DateOrder:
    """Whether day or month comes first in a file's dates, where some of them show it; ValueFault where they disagree."""
    found: set[DateOrder] = set()
    for text in texts:
        if (match := _NUMERIC_DATE.fullmatch(text.strip())) and len(match["a"]) <= 2:
            first, second = int(match["a"]), int(match["b"])
            if match["mark"] == "." or first > 12 >= second:
                found.add("dmy")
            elif second > 12 >= first:
                found.add("mdy")
    if len(found) > 1:
        raise ValueFault("some dates name the day first and some the month: say --date-format, such as %m/%d/%Y")
    return found.pop() if found else ""


def is_ambiguous(text: str) -> bool:
    """Whether a date could be read with the day or with the month first."""
    match = _NUMERIC_DATE.fullmatch(text.strip())
    if not match or len(match["a"]) > 2 or match["mark"] == ".":
        return False
    return int(match["a"]) <= 12 and int(match["b"]) <= 12 and match["a"] != match["b"]


def parse_when(text: str, calendar: Calendar) -> Span:
    """ISO 8601, Unix seconds or milliseconds, `11/22/2026 1:30 PM`, `22 Nov 2026`, or as `date_format` says."""
    text = text.strip()
    if not text:
        raise ValueFault("it has no date")
    try:
        if len(text) > _MAX_CHARS:
            raise ValueError("too long")
        return _parse(text, calendar)
    except (ValueError, OverflowError) as error:
        if isinstance(error, ValueFault):
            raise
        raise ValueFault(
            f"its date {text[:40]!r} cannot be read: say --date-format, such as %m/%d/%Y %H:%M:%S"
        ) from error


def parse_day(text: str, calendar: Calendar) -> date:
    """The day that a date is of, in the file's time zone."""
    span = parse_when(text, calendar)
    return datetime.fromtimestamp(span.from_ms / 1000, calendar.zone).date()


def _parse(text: str, calendar: Calendar) -> Span:
    if calendar.date_format:
        moment = datetime.strptime(text, calendar.date_format)  # noqa: DTZ007 - `_span` gives it the zone
        return _span(moment, calendar.zone, has_time=any(sign in calendar.date_format for sign in _TIME_SIGNS))
    if _UNIX.fullmatch(text):
        whole = text.partition(".")[0]
        ms = int(whole) if len(whole) >= 12 else round(Decimal(text) * 1000)
        return Span(ms, ms + 1000)
    if match := _NUMERIC_DATE.fullmatch(text):
        if len(match["a"]) == 4:
            day = date(int(match["a"]), int(match["b"]), int(match["c"]))
        elif len(match["c"]) == 4:
            day = _ordered(int(match["a"]), int(match["b"]), int(match["c"]), match["mark"], calendar.order, text)
        else:
            raise ValueError("a year of two digits")
        return _with_clock(day, match["rest"], calendar.zone)
    if match := _WORDY_DATE.fullmatch(text):
        month = _MONTHS.index((match["month"] or match["month2"])[:3].lower()) + 1
        day = date(int(match["year"] or match["year2"]), month, int(match["day"] or match["day2"]))
        return _with_clock(day, match["rest"], calendar.zone)
    return _span(datetime.fromisoformat(_ZONE_NAME.sub("+00:00", text)), calendar.zone, has_time=len(text) > 10)


_TIME_SIGNS = ("%H", "%I", "%T", "%c", "%X", "%s")


def _ordered(first: int, second: int, year: int, mark: str, order: DateOrder, text: str) -> date:
    if not order:
        order = "dmy" if mark == "." or first > 12 else "mdy" if second > 12 or first == second else ""
    if not order:
        raise ValueFault(f"its date {text[:40]!r} may mean two days: say --date-format %m/%d/%Y or %d/%m/%Y")
    day, month = (first, second) if order == "dmy" else (second, first)
    return date(year, month, day)


def _with_clock(day: date, rest: str | None, zone: tzinfo) -> Span:
    rest = (rest or "").strip(" ,T")
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - `_span` gives it the zone
    if not rest:
        return _span(midnight, zone, has_time=False)
    clock = _CLOCK.fullmatch(rest)
    if not clock:
        raise ValueError("no time of the day")
    hour = int(clock["h"])
    if clock["half"]:
        if not 1 <= hour <= 12:
            raise ValueError("no hour of half a day")
        hour = hour % 12 + (12 if clock["half"][0] in "Pp" else 0)
    moment = midnight.replace(
        hour=hour,
        minute=int(clock["m"]),
        second=int(clock["s"] or 0),
        microsecond=int(((clock["f"] or "") + "000000")[:6]),
    )
    if named := clock["zone"]:
        offset = "+0000" if named in ("UTC", "GMT", "Z") else named
        moment = moment.replace(tzinfo=datetime.strptime(offset, "%z").tzinfo)
    return _span(moment, zone, has_time=True, has_seconds=clock["s"] is not None)


def _span(moment: datetime, zone: tzinfo, *, has_time: bool, has_seconds: bool = True) -> Span:
    if has_time:
        from_ms = _ms(moment if moment.tzinfo else moment.replace(tzinfo=zone))
        return Span(from_ms, from_ms + (1000 if has_seconds else 60_000))
    next_day = moment + timedelta(days=1)
    return Span(_ms(moment.replace(tzinfo=zone)), _ms(next_day.replace(tzinfo=zone)))


def _ms(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1000)


def first_texts(rows: Sequence[Sequence[str]], place: int) -> list[str]:
    """What stands in a column of these rows."""
    return [text for row in rows if place < len(row) and (text := row[place].strip())]
