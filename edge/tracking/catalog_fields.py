"""What a value in a catalog file may be. A field's type carries its check; `catalog_file` turns a refusal into a fault.

A parser takes what TOML (or JSON) gave and returns the field's value, or raises ValueError. TOML's own decimals arrive
as Decimal, so that money is exact whether it is quoted or not.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

from edge.tracking.addresses import parse_rule
from edge.tracking.parameters import clean, clean_form
from edge.tracking.urls import fault_in_url

MAX_ID = 2**31 - 1
MAX_TEXT_CHARS = 250
MAX_MONEY = Decimal(10) ** 12
MAX_PERCENT = Decimal(1000)
_MAX_DIGITS = 20
MAX_DURATION_S = 3650 * 86_400
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_MONEY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_ALIAS_PATH = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", re.ASCII)
DEVICE_TYPES = ("desktop", "mobile", "tablet", "bot", "other")
STATUSES = ("approved", "pending", "rejected", "reversed")
SIGNING_PREFIX = "whsec_"
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# Paths that an alias would hide, or be hidden by: ours today and those of the contract.
RESERVED_PATHS = frozenset(
    [
        "aff_c",
        "aff_i",
        "aff_l",
        "aff_lsr",
        "aff_goal",
        "clk",
        "hop",
        "livez",
        "readyz",
        "metrics",
        "api",
        "click",
        "impression",
        "postback",
        "pixel",
        "c",
        "p",
    ]
)


class Refused(ValueError):
    """A value that is not allowed; the text, if any, says what is wrong with it and follows the value."""


class Check(NamedTuple):
    """How a field's value is read, and the words that say what is allowed. `is_secret`: faults never show the value."""

    parse: Callable[[Any], Any]
    allowed: str
    is_secret: bool = False


def _whole(lowest: int, highest: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ValueError
        return value

    return parse


def _decimal(below: Decimal) -> Callable[[object], Decimal]:
    def parse(value: object) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
            raise TypeError
        # Written out, 1e999999999 would fill the memory.
        if isinstance(value, Decimal) and not (value.is_finite() and abs(value.adjusted()) < _MAX_DIGITS):
            raise ValueError
        text = format(value, "f") if isinstance(value, Decimal) else str(value)
        if not _MONEY.fullmatch(text):
            raise ValueError
        amount = Decimal(text)
        if amount > below:
            raise ValueError
        return amount

    return parse


def _matching(pattern: re.Pattern[str]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError
        return value

    return parse


def _text(shortest: int, longest: int = MAX_TEXT_CHARS) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if not isinstance(value, str) or clean(value) != value or not shortest <= len(value) <= longest:
            raise ValueError
        return value

    return parse


def _duration_s(value: object) -> int:
    if str(value) == "0":
        return 0
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > MAX_DURATION_S:
        raise ValueError
    return seconds


def _time_zone(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    try:
        ZoneInfo(value)
    except (OSError, LookupError) as error:
        raise ValueError from error
    return value


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise TypeError
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)


def _url(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    fault = fault_in_url(value)
    if fault:
        raise Refused(fault)
    return value


def _url_or_none(value: object) -> str:
    return "" if value == "" else _url(value)


def _address_rule(value: object) -> str:
    if not isinstance(value, str) or parse_rule(value) is None:
        raise ValueError
    return value


def _domain(value: object) -> str:
    if not isinstance(value, str) or not _DOMAIN.fullmatch(value.lower()):
        raise ValueError
    return value.lower()


def _country(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z]{2}", value, re.ASCII):
        raise ValueError
    return value.upper()


def _weekday(value: object) -> str:
    if value not in WEEKDAYS:
        raise ValueError
    return str(value)


def _device_type(value: object) -> str:
    if not isinstance(value, str) or value.lower() not in DEVICE_TYPES:
        raise ValueError
    return value.lower()


def _each(parse: Callable[[object], Any]) -> Callable[[object], tuple[Any, ...]]:
    def parse_all(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(parse(one) for one in value)

    return parse_all


def _status(value: object) -> str:
    if value not in STATUSES:
        raise ValueError
    return str(value)


def _statuses(value: object) -> tuple[str, ...]:
    statuses = _each(_status)(value)
    if not statuses:
        raise Refused("is empty: it would never be sent")
    return statuses


def _signing_secret(value: object) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not value.startswith(SIGNING_PREFIX):
        raise ValueError
    try:
        key = b64decode(value.removeprefix(SIGNING_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if not 24 <= len(key) <= 64:
        raise ValueError
    return value


def _parameters(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError
    for name, one in value.items():
        if not _PARAMETER.fullmatch(name) or isinstance(one, bool) or not isinstance(one, int | str):
            raise Refused(f"has {name!r}, which cannot be a frozen parameter")
        if clean(str(one)) != str(one) or not 0 < len(str(one)) <= 1024:
            raise Refused(f"has a for {name!r} that is empty, too long or holds a control character")
    return clean_form(list(value.items()))


def _alias_path(value: object) -> str:
    path = _matching(_ALIAS_PATH)(value)
    if path.lower() in RESERVED_PATHS:
        raise Refused("is a path of ClickEdge's own")
    return path


def parse(check: Check, value: object) -> Any:
    """The field's value; Refused if it is not allowed."""
    try:
        return check.parse(value)
    except Refused:
        raise
    except (ValueError, TypeError, InvalidOperation, OverflowError) as error:
        raise Refused from error


_ID = f"a whole number from 1 to {MAX_ID}"
_WEB_ADDRESS = "an http:// or https:// address with a plain host; macros only after the host"
_MONEY_ALLOWED = 'an amount such as "5.00", from 0, below 10^12, at most 6 decimals'

Id = Annotated[int, Check(_whole(1, MAX_ID), _ID)]
IdOrNone = Annotated[int, Check(_whole(0, MAX_ID), _ID + ", or 0 for none")]
Name = Annotated[str, Check(_text(1), f"1 to {MAX_TEXT_CHARS} characters, none of them a control character")]
Text = Annotated[str, Check(_text(0), f"at most {MAX_TEXT_CHARS} characters, none of them a control character")]
Secret = Annotated[str, Check(_text(0), f"at most {MAX_TEXT_CHARS} printable characters", is_secret=True)]
Money = Annotated[Decimal, Check(_decimal(MAX_MONEY), _MONEY_ALLOWED)]
Percent = Annotated[Decimal, Check(_decimal(MAX_PERCENT), 'a percentage such as "12.5", from 0 to 1000')]
Count = Annotated[int, Check(_whole(0, MAX_ID), f"a whole number from 0 to {MAX_ID}")]
Positive = Annotated[int, Check(_whole(1, MAX_ID), _ID)]
Seconds = Annotated[int, Check(_duration_s, '"30d", "12h", "10m", "45s" or 0, at most 3650 days')]
PlainSeconds = Annotated[int, Check(_whole(0, MAX_DURATION_S), "a whole number of seconds, at most 3650 days")]
Currency = Annotated[str, Check(_matching(_CURRENCY), "an ISO 4217 code such as USD")]
TimeZone = Annotated[str, Check(_time_zone, "an IANA time zone such as Europe/Berlin")]
Moment = Annotated[
    datetime, Check(_moment, "a date and time such as 2026-12-31T23:00:00Z; UTC where no offset is given")
]
Url = Annotated[str, Check(_url, _WEB_ADDRESS)]
UrlOrNone = Annotated[str, Check(_url_or_none, _WEB_ADDRESS + '; or ""')]
AddressRules = Annotated[
    tuple[str, ...], Check(_each(_address_rule), "a list of addresses, a-b ranges and CIDR blocks")
]
Domains = Annotated[tuple[str, ...], Check(_each(_domain), "a list of host names such as shop.example.com")]
Countries = Annotated[tuple[str, ...], Check(_each(_country), "a list of two-letter country codes")]
Names = Annotated[tuple[str, ...], Check(_each(_text(1)), "a list of names")]
Devices = Annotated[tuple[str, ...], Check(_each(_device_type), "a list of " + ", ".join(DEVICE_TYPES))]
Languages = Annotated[
    tuple[str, ...], Check(_each(_matching(_LANGUAGE)), "a list of language tags such as de or pt-BR")
]
Share = Annotated[int, Check(_whole(1, 100), "a whole number from 1 to 100")]
Weekdays = Annotated[tuple[str, ...], Check(_each(_weekday), "a list of " + ", ".join(WEEKDAYS))]
Hours = Annotated[tuple[int, ...], Check(_each(_whole(0, 23)), "a list of whole numbers from 0 to 23")]
Ids = Annotated[tuple[int, ...], Check(_each(_whole(1, MAX_ID)), "a list of ids, whole numbers from 1")]
GoalIds = Annotated[tuple[int, ...], Check(_each(_whole(0, MAX_ID)), "a list of goals' ids; 0: the base conversion")]
Statuses = Annotated[tuple[str, ...], Check(_statuses, "a list of " + ", ".join(STATUSES))]
SigningSecret = Annotated[
    str, Check(_signing_secret, f"{SIGNING_PREFIX} and the base64 of 24 to 64 bytes; or none", is_secret=True)
]
AliasPath = Annotated[str, Check(_alias_path, "one path segment of 1 to 64 letters, digits, _ and -")]
Parameters = Annotated[dict[str, str], Check(_parameters, "a table of request parameters, such as { offer_id = 17 }")]
