"""A row of another tracker's click export: which column is what, and what its values mean here.

Columns are known by their headers, letters and digits only ("Click ID" is `click_id`); the first name in a field's list
that the file has is taken. What is not known is left out, unless the user says what it is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from ipaddress import ip_address
from typing import Literal, NamedTuple

import msgspec

from edge.errors import UserError
from edge.tracking.parameters import clean, to_id

Vendor = Literal["tune", "everflow", "csv"]

MAX_VALUE_CHARS = 4096
_FOREIGN_ID = re.compile(r"[!-~]{1,64}", re.ASCII)
_ID_BEHIND_NAME = re.compile(r".*\((?P<id>[0-9]{1,10})\)\s*", re.ASCII | re.DOTALL)
_PARAMETER = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_ZONE_NAME = re.compile(r" (UTC|GMT)$")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
REQUIRED = ("transaction_id", "datetime", "offer_id", "aff_id")

_NUMBERED = {
    f"{field}{n}": " ".join(name.replace("#", str(n)) for name in names.split())
    for n in range(1, 6)
    for field, names in (
        ("aff_sub", "aff_sub# affiliate_info# sub# sub_# subid# s#"),
        ("aff_unique", "aff_unique# affiliate_unique#"),
    )
}
_NAMES = {
    "transaction_id": "transaction_id transactionid click_id clickid tid session_id",
    "datetime": "datetime click_datetime session_datetime unix_timestamp timestamp click_timestamp click_time clicked_at"
    " click_date date_time created_at created time date",
    "offer_id": "offer_id network_offer_id oid offer",
    "aff_id": "aff_id affiliate_id network_affiliate_id partner_id affid publisher_id partner affiliate",
    "source": "source source_id affiliate_source",
    **_NUMBERED,
    "aff_sub1": f"{_NUMBERED['aff_sub1']} aff_sub",
    "aff_click_id": "aff_click_id affiliate_click_id external_id",
    **{f"utm_{name}": f"utm_{name}" for name in ("source", "medium", "campaign", "content", "term")},
    "contact_id": "contact_id customer_id",
    "ip": "ip session_ip user_ip ip_address click_ip",
    "user_agent": "user_agent useragent http_user_agent ua",
    "referrer": "referrer referer refer http_referer",
    "language": "language browser_language",
    "country": "country_code country",
    "region": "region_code region",
    "city": "city city_name",
    "url_id": "url_id offer_url_id network_offer_url_id",
    "file_id": "file_id offer_file_id creative_id network_offer_creative_id",
    "cost": "cost",
    "is_unique": "is_unique",
    "google_aid": "google_aid google_ad_id gaid",
    "ios_ifa": "ios_ifa idfa",
    "unid": "unid",
}
_COLUMNS = {field: tuple(names.split()) for field, names in _NAMES.items()}
# TUNE's reports call the transaction id `Stat.ad_id`.
_VENDOR_COLUMNS: dict[Vendor, dict[str, tuple[str, ...]]] = {
    "tune": {"transaction_id": ("transaction_id", "ad_id", "tune_event_id")},
    "everflow": {},
    "csv": {},
}
_REPORT_PREFIXES = ("stat_", "session_stat_")
_NOT_PARAMETERS = {
    *REQUIRED, *("ip", "user_agent", "referrer", "language", "country", "region", "city"),
    *("url_id", "file_id", "is_unique", "contact_id"),
}  # fmt: skip


class RowFault(ValueError):
    """Why a row cannot be taken over."""


class ForeignClick(msgspec.Struct, frozen=True):
    """A click of another tracker. `params`: as if the click had come here with them."""

    transaction_id: str
    ms: int
    offer_id: int
    aff_id: int
    landing_page_id: int
    creative_id: int
    contact_id: str
    ip: str
    user_agent: str
    referrer: str
    language: str
    country: str
    region: str
    city: str
    is_duplicate: bool
    params: dict[str, str]


class Columns(NamedTuple):
    """Where each field stands in a row, and the headers that nothing was made of."""

    places: dict[str, int]
    unused: tuple[str, ...]


def find_columns(header: Sequence[str], vendor: Vendor, mapped: Mapping[str, str]) -> Columns:
    """Which column is what; `mapped`: what the user said, field by header. UserError where one that must be is not."""
    by_header = {name.strip(): place for place, name in reversed(list(enumerate(header)))}
    by_word = {_word(name): place for name, place in reversed(by_header.items())}
    places: dict[str, int] = {}
    for name, field in mapped.items():
        place = by_header.get(name.strip(), by_word.get(_word(name)))
        if place is None:
            raise UserError(f"--map {name}={field}: the file has no column {name!r}; it has {', '.join(header)}")
        if not _PARAMETER.fullmatch(field):
            raise UserError(f"--map {name}={field}: {field!r} is no parameter's name")
        places[_canonical(field)] = place
    taken = set(places.values())
    for field, names in (_COLUMNS | _VENDOR_COLUMNS[vendor]).items():
        found = next((by_word[name] for name in names if name in by_word), None)
        if field not in places and found is not None and found not in taken:
            places[field] = found
    if missing := [field for field in REQUIRED if field not in places]:
        raise UserError(
            f"no column for {', '.join(missing)}: say which it is with --map COLUMN={missing[0]};"
            f" the file has {', '.join(header) or 'no header'}"
        )
    used = set(places.values())
    return Columns(places, tuple(name for place, name in enumerate(header) if place not in used and name.strip()))


def read_row(row: Sequence[str], columns: Columns, zone: tzinfo, time_format: str) -> ForeignClick:
    """The click in a row; RowFault says why there is none. `zone`: of times that name none."""
    values = dict(_values(row, columns.places))
    get = values.get
    params = {name: value for name, value in values.items() if name not in _NOT_PARAMETERS}
    return ForeignClick(
        transaction_id=_foreign_id(get("transaction_id", "")),
        ms=parse_time(get("datetime", ""), zone, time_format),
        offer_id=_id("offer_id", get("offer_id", "")),
        aff_id=_id("aff_id", get("aff_id", "")),
        landing_page_id=to_id(get("url_id", "")),
        creative_id=to_id(get("file_id", "")),
        contact_id=get("contact_id", ""),
        ip=_address(get("ip", "")),
        user_agent=get("user_agent", ""),
        referrer=get("referrer", ""),
        language=get("language", ""),
        country=_country(get("country", "")),
        region=get("region", ""),
        city=get("city", ""),
        is_duplicate=get("is_unique", "").lower() in ("0", "false", "no"),
        params=params,
    )


def parse_time(text: str, zone: tzinfo, time_format: str = "") -> int:
    """Unix ms of ISO 8601 or Unix seconds or milliseconds, or of a time in `time_format`; RowFault for anything else."""
    if not text:
        raise RowFault("it has no time")
    try:
        if time_format:
            moment = datetime.strptime(text, time_format)  # noqa: DTZ007 - the zone is given below
        elif text.isascii() and text.replace(".", "", 1).isdigit() and len(text) >= 9:
            return _unix_ms(text)
        else:
            moment = datetime.fromisoformat(_ZONE_NAME.sub("+00:00", text))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return round(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise RowFault(f"its time {text[:40]!r} cannot be read: use --time-format, such as %m/%d/%Y %H:%M:%S") from error


def _unix_ms(text: str) -> int:
    whole, _, fraction = text.partition(".")
    if len(whole) > 13:
        raise ValueError("beyond the year 2286")
    if len(whole) >= 12:
        return int(whole)
    return int(whole) * 1000 + int((fraction + "000")[:3])


def _values(row: Sequence[str], places: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    for field, place in places.items():
        value = clean(row[place]).strip() if place < len(row) else ""
        if len(value) > MAX_VALUE_CHARS:
            raise RowFault(f"its {field} is longer than {MAX_VALUE_CHARS} characters")
        if value and value not in ("NULL", "\\N"):
            yield field, value


def _foreign_id(text: str) -> str:
    if not _FOREIGN_ID.fullmatch(text):
        raise RowFault("its transaction id is missing, longer than 64 characters, or not plain ASCII")
    return text


def _id(field: str, text: str) -> int:
    """The id; of `Holiday decor (17)` the one in brackets, as Everflow writes it."""
    found = _ID_BEHIND_NAME.fullmatch(text)
    number = to_id(found["id"] if found else text)
    if not number:
        raise RowFault(f"its {field} {text[:40]!r} is no id")
    return number


def _address(text: str) -> str:
    if not text:
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        raise RowFault(f"its ip {text[:60]!r} is no address") from None


def _country(text: str) -> str:
    """Two letters; a country's name is not kept."""
    return text.upper() if len(text) == 2 and text.isalpha() and text.isascii() else ""


def _word(header: str) -> str:
    word = _NOT_WORD.sub("_", header.strip().lower()).strip("_")
    return next((word.removeprefix(prefix) for prefix in _REPORT_PREFIXES if word.startswith(prefix)), word)


def _canonical(field: str) -> str:
    return {"aff_sub": "aff_sub1", "affiliate_id": "aff_id", "click_id": "transaction_id"}.get(field, field)
