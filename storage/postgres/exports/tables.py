"""What can be exported: tables, their columns, and who may see which. Names are those of the database."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from storage.postgres.reports.conversion_sources import CHANGE_ROWS, CREDIT_ROWS
from storage.postgres.reports.sources import CLICK_ROWS, COST_ROWS, VIEW_ROWS, Column, Source
from storage.postgres.reports.viewer import EVERYBODY, NETWORK, Scope

Kind = Literal["id", "int", "bigint", "text", "money", "time", "date", "ip", "json", "texts"]
"""`id`: a UUID, written as 32 hex digits; `money`: numeric(18,6); `time`: an instant; `texts`: several."""
_PARTNER: tuple[Scope, ...] = ("admin", "reports", "partner")
_ADVERTISER: tuple[Scope, ...] = ("admin", "reports", "advertiser")


class Field(NamedTuple):
    """A column. `sql` "": the table's own of that name."""

    name: str
    kind: Kind
    scopes: tuple[Scope, ...] = EVERYBODY
    sql: str = ""


class Table(NamedTuple):
    """`source`: its rows, and what they can be filtered by; `by_click`: the same by the time of their touch.

    `prefix`: its alias there; `order`: what tells its rows apart, cheapest first.
    """

    name: str
    source: Source
    prefix: str
    order: str
    fields: tuple[Field, ...]
    scopes: tuple[Scope, ...] = EVERYBODY
    by_click: Source | None = None
    is_timeless: bool = False
    """Whether all of it is meant where no time is named."""

    def visible(self, scope: Scope) -> list[Field]:
        """The columns that a viewer of this scope is shown."""
        return [field for field in self.fields if scope in field.scopes]

    def expression(self, field: Field) -> str:
        """The column's value, as it is stored."""
        return field.sql or f"{self.prefix}.{field.name}"


def _fields(kind: Kind, names: str, scopes: tuple[Scope, ...] = EVERYBODY) -> Iterable[Field]:
    return (Field(name, kind, scopes) for name in names.split())


_SUBS = "aff_sub1 aff_sub2 aff_sub3 aff_sub4 aff_sub5"
_UTM = "utm_source utm_medium utm_campaign utm_content utm_term"
_TOUCH = (
    Field("click_id", "id"),
    Field("clicked_at", "time"),
    Field("node_id", "int", NETWORK),
    *_fields("int", "offer_id aff_id landing_page_id creative_id"),
    *_fields("text", f"alias source {_SUBS}"),
    Field("aff_click_id", "text", _PARTNER),
    *_fields("text", f"{_UTM} contact_id"),
    Field("ip", "ip", NETWORK),
    *_fields("text", "country region city"),
    Field("user_agent", "text", NETWORK),
    *_fields("text", "device_type device_brand os browser language"),
    Field("referrer", "text", _PARTNER),
    *_fields("id", "visitor first_click_id", NETWORK),
    Field("cost", "money", NETWORK),
    Field("payout", "money", _PARTNER),
    Field("revenue", "money", _ADVERTISER),
    *_fields("text", "currency outcome reason"),
    Field("flags", "texts"),
    Field("extras", "json", _PARTNER),
    Field("catalog_revision", "bigint", NETWORK),
)
_CONVERSION = (
    *_fields("id", "conversion_id click_id"),
    Field("transaction_id", "text"),
    Field("node_id", "int", NETWORK),
    Field("advertiser_id", "int", _ADVERTISER),
    *_fields("int", "offer_id aff_id goal_id landing_page_id creative_id"),
    *_fields("time", "touched_at converted_at received_at"),
    Field("amount", "money"),
    Field("currency", "text"),
    Field("revenue", "money", _ADVERTISER),
    Field("payout", "money", _PARTNER),
    *_fields("text", "status reason"),
    Field("status_code", "int"),
    *_fields("text", "adv_sub1 adv_sub2 adv_sub3 adv_sub4 adv_sub5 conversion_unique_id", _ADVERTISER),
    *_fields("text", "promo_code via"),
    Field("ip", "ip", NETWORK),
    *_fields("text", "country device_type contact_id"),
    Field("extras", "json", _ADVERTISER),
    Field("tier", "int", _PARTNER),
    Field("named_click_id", "id", NETWORK),
    Field("catalog_revision", "bigint", NETWORK),
    Field("erased_at", "time", NETWORK),
)
_CHANGE = (
    Field("change_id", "bigint"),
    Field("conversion_id", "id", sql="change.conversion_id"),
    *_fields("time", "changed_at booked_hour"),
    Field("actor", "text", NETWORK),
    *_fields("text", "kind status_before status_after reason"),
    Field("advertiser_id", "int", _ADVERTISER, "conversion.advertiser_id"),
    *(Field(name, "int", EVERYBODY, f"conversion.{name}") for name in ("offer_id", "aff_id", "goal_id")),
    Field("currency", "text", EVERYBODY, "conversion.currency"),
    Field("amount_delta", "money"),
    Field("revenue_delta", "money", _ADVERTISER),
    Field("payout_delta", "money", _PARTNER),
    *_fields("int", "conversions_delta pending_delta rejected_delta"),
    Field("note", "text", NETWORK),
    Field("cause_id", "id", NETWORK),
)
_COST = (
    Field("day", "date"),
    *_fields("int", "offer_id aff_id creative_id"),
    *_fields("text", "list currency"),
    Field("amount", "money"),
    Field("sends", "bigint"),
    Field("feed", "text"),
)
_CONTACT = (
    *_fields("text", "contact_id list"),
    *_fields("time", "signed_up_at first_seen_at"),
    Field("first_click_id", "id"),
    Field("deleted_at", "time"),
    Field("extras", "json"),
)
_CONTACT_ROWS = Source(
    name="contacts",
    rank=0,
    table="contacts AS person",
    moment="coalesce(person.signed_up_at, person.first_seen_at)",
    grain="instant",
    columns={"contact": Column("person.contact_id"), "list": Column("person.list")},
    components={},
    extra=Column("coalesce(person.extras ->> {key}, '')"),
)
_ALL = (
    Table("clicks", CLICK_ROWS, "touch", "touch.click_id", _TOUCH),
    Table("impressions", VIEW_ROWS, "touch", "touch.click_id", _TOUCH),
    Table(
        "conversions",
        CREDIT_ROWS._replace(moment="conversion.received_at"),
        "conversion",
        "conversion.received_at, conversion.conversion_id",
        _CONVERSION,
        by_click=CREDIT_ROWS,
    ),
    Table("changes", CHANGE_ROWS, "change", "change.change_id", _CHANGE),
    Table(
        "costs",
        COST_ROWS,
        "spend",
        "spend.day, spend.offer_id, spend.aff_id, spend.creative_id, spend.list, spend.currency, spend.feed",
        _COST,
        NETWORK,
    ),
    Table("contacts", _CONTACT_ROWS, "person", "person.contact_id", _CONTACT, NETWORK, is_timeless=True),
)
TABLES: dict[str, Table] = {one.name: one for one in _ALL}
