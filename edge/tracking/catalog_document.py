"""The catalog as its file says it: one struct per table, each field with its limits and default.

Attribute names carry units (`click_window_s`); the file's and the stored names do not (`click_window`).
Stored bodies are JSON of these structs. Reading them back ignores fields of a later release; the file's reader does not.
"""

from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Literal

import msgspec

from edge.tracking.catalog_fields import (
    AddressRules,
    AliasPath,
    Count,
    Countries,
    Currency,
    Devices,
    Domains,
    GoalIds,
    Hours,
    Id,
    IdOrNone,
    Ids,
    Languages,
    Moment,
    Money,
    Name,
    Names,
    Parameters,
    Percent,
    PlainSeconds,
    Positive,
    Seconds,
    Secret,
    Share,
    SigningSecret,
    Statuses,
    Text,
    TimeZone,
    Url,
    UrlOrNone,
    Weekdays,
)

PayoutType = Literal["cpa_flat", "cpa_percentage", "cpa_both", "cpc", "cpm"]
Duplicates = Literal["reject", "new", "new_repeated", "update", "increment", "by_event_id"]
AliasKind = Literal["click", "impression", "postback", "pixel", "goal_postback", "goal_pixel"]
_NOTHING = Decimal(0)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every table. `key`: the fields that tell an entry from its like; none: its position does."""

    key: ClassVar[tuple[str, ...]] = ("id",)


class Advertiser(Part, frozen=True, kw_only=True):
    id: Id
    name: Name
    ref: Text = ""
    security_token: Secret = ""
    signing_secret: Secret = ""
    allowed_ips: AddressRules = ()


class Postback(Part, frozen=True, kw_only=True):
    """An address told of the conversions that all lists let through; an empty list lets all of them."""

    key: ClassVar[tuple[str, ...]] = ()

    url: Url
    method: Literal["GET", "POST"] = "GET"
    offer_ids: Ids = ()
    goal_ids: GoalIds = ()
    statuses: Statuses = ("approved",)


class Partner(Part, frozen=True, kw_only=True):
    id: Id
    name: Name
    ref: Text = ""
    status: Literal["active", "blocked"] = "active"
    postback_url: UrlOrNone = ""
    postbacks: tuple[Postback, ...] = ()
    postback_secret: SigningSecret = ""


class Caps(Part, frozen=True, kw_only=True):
    """None: no cap."""

    daily_clicks: Count | None = None
    weekly_clicks: Count | None = None
    monthly_clicks: Count | None = None
    total_clicks: Count | None = None
    daily_conversions: Count | None = None
    weekly_conversions: Count | None = None
    monthly_conversions: Count | None = None
    total_conversions: Count | None = None
    daily_payout: Money | None = None
    weekly_payout: Money | None = None
    monthly_payout: Money | None = None
    total_payout: Money | None = None
    daily_revenue: Money | None = None
    weekly_revenue: Money | None = None
    monthly_revenue: Money | None = None
    total_revenue: Money | None = None


class TermsPart(Part, frozen=True, kw_only=True):
    """Money terms that replace the offer's where they are given; None: not given here."""

    payout_type: PayoutType | None = None
    payout: Money | None = None
    payout_percent: Percent | None = None
    revenue_type: PayoutType | None = None
    revenue: Money | None = None
    revenue_percent: Percent | None = None


class Goal(TermsPart, frozen=True, kw_only=True):
    id: Id
    name: Name
    duplicates: Duplicates | None = None


class Override(TermsPart, frozen=True, kw_only=True):
    """A partner's own terms: for one goal, or with `goal_id` 0 for whatever the offer pays."""

    key: ClassVar[tuple[str, ...]] = ("aff_id", "goal_id")

    aff_id: Id
    goal_id: IdOrNone = 0
    caps: Caps = Caps()


class LandingPage(Part, frozen=True, kw_only=True):
    id: Id
    name: Text = ""
    url: Url
    weight: Count = 0
    """Its share of the clicks that ask for no page; 0: it is shown only to those that ask for it."""


class Creative(Part, frozen=True, kw_only=True):
    id: Id
    name: Name


class When(Part, frozen=True, kw_only=True):
    """All lists that are not empty must match, and of the visitors that match so many in a hundred are taken."""

    country: Countries = ()
    region: Names = ()
    device: Devices = ()
    os: Names = ()
    browser: Names = ()
    language: Languages = ()
    weekday: Weekdays = ()
    hour: Hours = ()
    source: Names = ()
    aff_sub1: Names = ()
    aff_sub2: Names = ()
    aff_sub3: Names = ()
    aff_sub4: Names = ()
    aff_sub5: Names = ()
    percentage: Share = 100


class Then(Part, frozen=True, kw_only=True):
    """Exactly one of these is set."""

    landing_page_id: IdOrNone = 0
    offer_id: IdOrNone = 0
    url: UrlOrNone = ""
    reject: Text = ""


class Rule(Part, frozen=True, kw_only=True):
    key: ClassVar[tuple[str, ...]] = ()

    when: When = When()
    then: Then


class Tier(Part, frozen=True, kw_only=True):
    key: ClassVar[tuple[str, ...]] = ("from_conversions",)

    from_conversions: Positive
    payout: Money | None = None
    payout_percent: Percent | None = None


class PromoCode(Part, frozen=True, kw_only=True):
    key: ClassVar[tuple[str, ...]] = ("code",)

    code: Name
    aff_id: Id
    wins: bool = False
    """Whether its partner is paid also where a click names another."""


class Offer(Part, frozen=True, kw_only=True):
    id: Id
    advertiser_id: Id
    name: Name
    ref: Text = ""
    url: Url
    preview_url: UrlOrNone = ""
    status: Literal["active", "paused", "expired"] = "active"
    expires_at: Moment | None = None
    payout_type: PayoutType = "cpa_flat"
    payout: Money = _NOTHING
    payout_percent: Percent = _NOTHING
    revenue_type: PayoutType = "cpa_flat"
    revenue: Money = _NOTHING
    revenue_percent: Percent = _NOTHING
    currency: Currency = "USD"
    advertiser_sets_amounts: bool = False
    approval: Literal["auto", "manual"] = "auto"
    click_window_s: Seconds = msgspec.field(default=30 * 86_400, name="click_window")
    impression_window_s: Seconds = msgspec.field(default=86_400, name="impression_window")
    min_seconds_to_convert: PlainSeconds = 0
    attribution: Literal["last", "first"] = "last"
    duplicates: Duplicates = "reject"
    allowed_domains: Domains = ()
    pixels: bool = True
    cookies: bool = True
    tracking: Literal["transaction_id", "partner_id"] = "transaction_id"
    time_zone: TimeZone = "UTC"
    redirect: Literal["301", "302", "303", "307", "single_meta_refresh", "double_meta_refresh"] = "302"
    tiers: tuple[Tier, ...] = ()
    promo_codes: tuple[PromoCode, ...] = ()
    redirect_offer_id: IdOrNone = 0
    caps: Caps = Caps()
    cap_clicks: Literal["redirect", "allow"] = "redirect"
    cap_conversions: Literal["reject", "pending"] = "reject"
    goals: tuple[Goal, ...] = ()
    overrides: tuple[Override, ...] = ()
    landing_pages: tuple[LandingPage, ...] = ()
    creatives: tuple[Creative, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def expires_at_ms(self) -> int:
        """Unix milliseconds; 0: never."""
        return _to_ms(self.expires_at) if self.expires_at else 0


class Alias(Part, frozen=True, kw_only=True):
    key: ClassVar[tuple[str, ...]] = ("path",)

    path: AliasPath
    kind: AliasKind
    params: Parameters = {}


def _to_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


Item = Advertiser | Partner | Offer | Alias
TABLES: dict[str, type[Advertiser] | type[Partner] | type[Offer] | type[Alias]] = {
    "advertisers": Advertiser,
    "partners": Partner,
    "offers": Offer,
    "aliases": Alias,
}
_decoders = {kind: msgspec.json.Decoder(struct) for kind, struct in TABLES.items()}
encode_item = msgspec.json.Encoder().encode


def decode_item(kind: str, body: bytes) -> Item:
    """The stored item of that table; msgspec.ValidationError or DecodeError for bytes that are none."""
    return _decoders[kind].decode(body)


def item_id(item: Item) -> str:
    """Its id within its table, as it is stored."""
    return item.path if isinstance(item, Alias) else str(item.id)
