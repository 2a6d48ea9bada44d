"""Which column of a file is what: known by its header, letters and digits only, unless the user says otherwise."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from edge.errors import UserError

Kind = Literal["conversions", "costs", "contacts"]
Vendor = Literal["tune", "everflow", "impact", "csv"]
VENDORS: tuple[Vendor, ...] = ("tune", "everflow", "impact", "csv")
VENDOR_NAMES: dict[Vendor, str] = {"tune": "TUNE", "everflow": "Everflow", "impact": "impact.com", "csv": "plain CSV"}

_NOT_WORD = re.compile(r"[^a-z0-9]+")
_PREFIXES = ("stat_", "conversion_stat_", "session_stat_")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_OWN_COLUMNS = ("line", "reason")

_CONVERSION = {
    "transaction_id": "transaction_id transactionid click_id clickid tid clickref tracking_id session_id",
    "datetime": "datetime conversion_datetime conversion_date conversion_time conversion_timestamp converted_at event_date"
    " action_date order_date transaction_date sale_date date_time timestamp created_at created date time day",
    "amount": "amount sale_amount order_amount order_value order_total sale_value sale total value price",
    "currency": "currency currency_code currency_id sale_currency",
    "status": "status conversion_status state action_status",
    "goal_id": "goal_id",
    "goal_name": "goal_name goal event event_name event_type",
    "offer_id": "offer_id network_offer_id oid offer",
    "aff_id": "aff_id affiliate_id network_affiliate_id partner_id affid publisher_id affiliate partner",
    "conversion_unique_id": "conversion_unique_id conversion_id conversionid",
    "adv_unique1": "adv_unique1 advertiser_unique1 order_id orderid order_number order event_reference",
    "payout": "payout",
    "revenue": "revenue",
    "promo_code": "promo_code coupon_code promo coupon",
    "contact_id": "contact_id customer_id user_id",
    **{f"adv_sub{n}": f"adv_sub{n} advertiser_sub{n} adv{n}" for n in range(1, 6)},
}
_CONVERSION["adv_sub1"] += " adv_sub advertiser_info advertiser_sub_id"
_COST = {
    "day": "day date cost_date spend_date report_date reporting_starts",
    "offer_id": "offer_id offer",
    "aff_id": "aff_id affiliate_id partner_id partner affiliate",
    "creative_id": "creative_id file_id creative",
    "list": "list list_id list_name sending_list",
    "currency": "currency currency_code account_currency",
    "amount": "amount cost spend amount_spent total_cost costs spent",
    "sends": "sends sent delivered recipients messages messages_sent emails_sent",
}
_CONTACT = {
    "contact_id": "contact_id contact id customer_id user_id subscriber_id",
    "list": "list list_id list_name sending_list",
    "signed_up_at": "signed_up_at signup_date sign_up_date signed_up subscribed_at subscription_date created_at created"
    " opt_in_date optin_date date_added joined_at registered_at",
}
_TABLES: dict[Kind, dict[str, str]] = {"conversions": _CONVERSION, "costs": _COST, "contacts": _CONTACT}
_NAMES: dict[Kind, dict[str, tuple[str, ...]]] = {
    kind: {field: tuple(names.split()) for field, names in table.items()} for kind, table in _TABLES.items()
}
REQUIRED: dict[Kind, tuple[str, ...]] = {"conversions": ("datetime",), "costs": ("day",), "contacts": ("contact_id",)}

# What each vendor's reports call it, where that is not what the word means elsewhere.
_VENDOR_NAMES: dict[Vendor, dict[str, tuple[str, ...]]] = {
    "tune": {
        "transaction_id": ("ad_id", "transaction_id", "tune_event_id"),
        "datetime": ("datetime", "conversion_datetime", "date"),
        "conversion_unique_id": ("conversion_unique_id", "conversion_id", "id"),
        "adv_sub1": ("advertiser_info", "adv_sub1", "adv_sub", "advertiser_sub_id"),
    },
    "everflow": {
        "transaction_id": ("transaction_id",),
        "datetime": ("conversion_unix_timestamp", "conversion_timestamp", "conversion_date", "unix_timestamp", "date"),
        "goal_name": ("event", "event_name"),
    },
    "impact": {
        "transaction_id": ("click_id", "clickid"),
        "datetime": ("event_date", "action_date", "creation_date"),
        "conversion_unique_id": ("action_id",),
        "adv_unique1": ("oid", "order_id"),
        "offer_id": (),
        "aff_id": (),
        "goal_name": ("event_type_code",),
    },
    "csv": {},
}
# Columns that only this vendor's reports have: the vendor with the most of them is meant.
_TELLTALES: dict[Vendor, frozenset[str]] = {
    "tune": frozenset(("ad_id", "affiliate_info1", "advertiser_info", "conversion_status", "advertiser_sub_id")),
    "everflow": frozenset(
        [
            "conversion_unix_timestamp",
            "click_unix_timestamp",
            "network_offer_id",
            "payout_type",
            "is_view_through",
            "conversion_timestamp",
            "relationship_offer_name",
            "coupon_code",
            "sub1",
            "adv1",
            "event",
        ]
    ),
    "impact": frozenset(("action_id", "action_tracker", "locking_date", "event_type_code", "shared_id", "sharedid"))
    | {f"sub_id_{n}" for n in range(1, 4)}
    | {f"subid{n}" for n in range(1, 4)},
    "csv": frozenset(),
}
# Where a network is told our click id, and so gives it back.
_OUR_ID = frozenset(
    word.replace("#", number)
    for number in ("", "1", "2", "3", "4", "5")
    for word in ("aff_sub#", "sub#", "sub_#", "subid#", "sub_id#", "sub_id_#", "s#", "affiliate_info#", "aff_click_id")
) | {"shared_id", "sharedid", "p1", "clickref", "u1", "tracking_id", "affiliate_click_id"}


class Columns(NamedTuple):
    """Where each field stands in a row. `ours`: columns that may hold a click id of ours. `unused`: by place."""

    kind: Kind
    vendor: Vendor
    header: tuple[str, ...]
    places: dict[str, int]
    constants: dict[str, str]
    ours: tuple[int, ...]
    unused: dict[int, str]

    def described(self) -> dict[str, str]:
        """What each field is taken from: a column's header, or the value that the user gave."""
        taken = {field: self.header[place] for field, place in self.places.items()}
        return taken | {field: f"always {value}" for field, value in self.constants.items()}

    def values(self, row: Sequence[str]) -> dict[str, str]:
        """The fields of a row that say something, as they stand there."""
        found = dict(self.constants)
        for field, place in self.places.items():
            if place < len(row) and (text := row[place].strip()) and text not in ("NULL", "\\N"):
                found[field] = text
        return found


def find_columns(
    kind: Kind,
    header: Sequence[str],
    mapped: Mapping[str, str],
    constants: Mapping[str, str],
    vendor: Vendor | None = None,
) -> Columns:
    """Which column is what. `mapped`: the column of a field, as the user says ("": of none); `constants`: values for all.

    UserError where one that must be is not, or what the user says is not there.
    """
    by_header = {name: place for place, name in reversed(list(enumerate(header)))}
    by_word = {word: place for place, name in reversed(list(enumerate(header))) if (word := _word(name))}
    _check_fields(kind, (*mapped, *constants))
    vendor = vendor or guess_vendor(header) if kind == "conversions" else "csv"
    places = {field: _place_of(field, name, by_header, by_word, header) for field, name in mapped.items() if name}
    taken = set(places.values())
    own = {by_word[word] for word in _OWN_COLUMNS if word in by_word and tuple(map(_word, header[:2])) == _OWN_COLUMNS}
    if own and kind == "costs":
        raise UserError(
            "these are refused rows: correct them in the file that they are of, and import that again."
            " What a file says of a day and place takes the place of what was said of it before"
        )
    for field, names in _names(kind, vendor).items():
        if field in mapped or field in constants:
            continue
        found = next((by_word[name] for name in names if name in by_word and by_word[name] not in taken | own), None)
        if found is not None:
            places[field] = found
            taken.add(found)
    ours: tuple[int, ...] = ()
    if kind == "conversions" and "transaction_id" not in mapped:
        ours = tuple(place for word, place in by_word.items() if word in _OUR_ID)
    used = {*places.values(), *ours, *own}
    unused = {place: name for place, name in enumerate(header) if place not in used and name}
    columns = Columns(kind, vendor, tuple(header), places, dict(constants), ours, unused)
    _check_complete(columns)
    return columns


def _names(kind: Kind, vendor: Vendor) -> dict[str, tuple[str, ...]]:
    """What each field may be called, likeliest first: as the vendor does, then as anybody; nothing where he never says it."""
    own = _VENDOR_NAMES[vendor] if kind == "conversions" else {}
    return {
        field: (*own[field], *names) if own.get(field) else own.get(field, names)
        for field, names in _NAMES[kind].items()
    }


def guess_vendor(header: Sequence[str]) -> Vendor:
    """Whose report has such columns; `csv` where nothing tells."""
    words = set(map(_word, header))
    scores = {vendor: len(words & telltales) for vendor, telltales in _TELLTALES.items()}
    best = max(scores, key=lambda vendor: scores[vendor])
    return best if scores[best] else "csv"


def fields_of(kind: Kind) -> tuple[str, ...]:
    """The fields that a column may be mapped to."""
    return tuple(_NAMES[kind])


def _check_fields(kind: Kind, fields: Sequence[str]) -> None:
    for field in fields:
        is_known = field in _NAMES[kind] if kind != "conversions" else bool(_FIELD.fullmatch(field))
        if not is_known:
            raise UserError(f"{field[:64]!r} is no field of {kind}: {', '.join(_NAMES[kind])}")


def _place_of(
    field: str, name: str, by_header: Mapping[str, int], by_word: Mapping[str, int], header: Sequence[str]
) -> int:
    place = by_header.get(name.strip(), by_word.get(_word(name)))
    if place is None:
        raise UserError(f"--map {field}={name}: the file has no column {name!r}; it has {_listed(header)}")
    return place


def _check_complete(columns: Columns) -> None:
    known = columns.places.keys() | columns.constants.keys()
    missing = [field for field in REQUIRED[columns.kind] if field not in known]
    if columns.kind == "conversions" and not (
        known & {"transaction_id", "contact_id", "aff_id", "promo_code"} or columns.ours
    ):
        missing.append("transaction_id")
    if columns.kind == "costs" and not known & {"amount", "sends"}:
        missing.append("amount")
    if missing:
        raise UserError(
            f"no column for {', '.join(missing)}: is the header missing? Say which column it is with"
            f' --map {missing[0]}="…"; the file begins with {_listed(columns.header)}'
        )


def _listed(header: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in header[:20])
    return f"{shown}, and {len(header) - 20} more" if len(header) > 20 else shown


def _word(header: str) -> str:
    word = _NOT_WORD.sub("_", header.strip().lower()).strip("_")
    return next((word.removeprefix(prefix) for prefix in _PREFIXES if word.startswith(prefix)), word)
