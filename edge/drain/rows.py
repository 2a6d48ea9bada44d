"""Clicks and impressions into rows and roll-ups: device, place, earnings. No I/O; one event's fault is its own."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from ipaddress import ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from edge.enrich import Enricher
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ms_of, node_of
from edge.tracking.parameters import to_id
from edge.tracking.payouts import ZERO, Money, click_money, impression_money, parse_amount
from edge.tracking.surroundings import Device, Place
from edge.tracking.verdict import TouchKind
from edge.tracking.visitors import Visitors
from storage.journal.events import Click, Impression, Session
from storage.postgres.copy import TouchRow, Uuid
from storage.postgres.stats import Deltas, StatsKey

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOTHING = Money(ZERO, ZERO)
MAX_EXTRAS = 32
HOUR_MS = 3_600_000
INVALID_FLAGS = frozenset(("bot", "prefetch", "datacentre"))
UNPAID_REASONS = frozenset(("unknown_partner", "partner_blocked"))
UNPAID_BY_OFFER = frozenset(("capped", "offer_paused", "offer_expired"))
"""Reasons of an offer that still stands in the row: it took no more of what is paid. A stand-in's click is paid."""
UNTAKEN = frozenset(("fallback", "rejected"))
"""Outcomes of clicks that no offer got."""

_TEXT_COLUMNS = [
    "source",
    "aff_sub1",
    "aff_sub2",
    "aff_sub3",
    "aff_sub4",
    "aff_sub5",
    "aff_click_id",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_content",
    "utm_term",
    "contact_id",
]
_NOT_EXTRA = frozenset((*_TEXT_COLUMNS, "offer_id", "aff_id", "url_id", "file_id", "cost"))


class Touched(NamedTuple):
    """A session with what the drain knows of it besides; `named_id` and `why` as in `Touch`."""

    session: Session
    country: str
    device_type: str
    kind: TouchKind = "click"
    named_id: bytes = b""
    why: str = ""


def moment(ms: int) -> datetime:
    """Unix milliseconds as an aware datetime."""
    return EPOCH + timedelta(milliseconds=ms)


def hour_of(when: datetime) -> datetime:
    """The hour in which `when` is booked."""
    return when.replace(minute=0, second=0, microsecond=0)


def extras_of(params: dict[str, str], named: frozenset[str]) -> dict[str, str]:
    """The parameters without a column of their own, at most 32."""
    if params.keys() <= named:
        return {}
    extras = {name: value for name, value in params.items() if name not in named}
    return extras if len(extras) <= MAX_EXTRAS else dict(list(extras.items())[:MAX_EXTRAS])


class RowMaker:
    """Makes the rows of one drain."""

    def __init__(
        self, enricher: Enricher, settings: Settings, is_repeat: Callable[[Session, bytes], bool] | None = None
    ) -> None:
        self._enricher = enricher
        self._is_repeat = is_repeat
        """Whether a visitor has come again; None: nobody asks."""
        self._ip_storage = settings.ip_storage
        # A link that says an address itself says it in full.
        self._not_extra = _NOT_EXTRA if settings.ip_storage == "full" else _NOT_EXTRA | {"ip", "session_ip"}
        # One object an hour: a datetime's hash is computed once, and its comparison with itself is free.
        self._hour = lru_cache(64)(lambda number: moment(number * HOUR_MS))
        self._visitors = Visitors(settings.secrets[0])

    def touched(self, session: Session) -> Touched:
        """The session with its country and device."""
        device_type = self._enricher.device(session.user_agent).device_type
        return Touched(session, self._enricher.place(session.ip).country, device_type)

    def touch_row(self, event: Click | Impression, session: Session, catalog: Catalog, deltas: Deltas) -> TouchRow:
        """The event's row; what it adds to the roll-ups goes to `deltas`."""
        device, place = self._enricher.device(session.user_agent), self._enricher.place(session.ip)
        flags = self._flags(event.flags, device, session.ip)
        offer = catalog.offer(session.offer_id)
        is_click = isinstance(event, Click)
        is_valid = INVALID_FLAGS.isdisjoint(flags)
        visitor = event.visitor or self._visitors.name(session.ip, session.user_agent)
        if is_click and is_valid and self._is_repeat is not None and self._is_repeat(session, visitor):
            flags = [*flags, "duplicate"]
        is_unique = is_valid and "duplicate" not in flags
        is_taken = event.outcome not in UNTAKEN
        money = NOTHING
        if offer and is_taken and (is_unique if is_click else is_valid) and not _is_unpaid(event):
            terms = offer.terms(0, session.aff_id)
            # Most offers pay for conversions only; asked first, that saves the arithmetic.
            if ("cpc" if is_click else "cpm") in (terms.payout_type, terms.revenue_type):
                money = click_money(terms) if is_click else impression_money(terms)
        row = self._row(event, session, device, place, visitor, flags, money, offer.currency if offer else "")
        key = StatsKey(
            self._hour(ms_of(session.click_id) // HOUR_MS),
            row.node_id,
            offer.advertiser_id if offer else 0,
            row.offer_id,
            row.aff_id,
            0,
            row.landing_page_id,
            row.creative_id,
            place.country,
            device.device_type,
            row.currency,
        )
        if is_click:
            deltas.add_click(key, is_valid=is_valid, is_unique=is_unique)
            if is_valid and not is_taken:
                deltas.add(key, refused_clicks=1)
        else:
            deltas.add(key, impressions=1)
        if money is not NOTHING and (money.payout or money.revenue):
            deltas.add(key, payout=money.payout, revenue=money.revenue)
        if row.cost:
            deltas.add(key, cost=row.cost)
        return row

    def _flags(self, flags: list[str], device: Device, ip: str) -> list[str]:
        """The worker's flags and those that take a look-up."""
        if device.is_bot:
            flags = [*flags, "bot"]
        return [*flags, "datacentre"] if self._enricher.is_datacentre(ip) else flags

    def stored_ip(self, ip: str) -> str | None:
        """The address as `EDGE_IP_STORAGE` wants it kept; None for none."""
        if not ip or self._ip_storage == "none":
            return None
        if self._ip_storage == "truncated":
            bits = 24 if ip_address(ip).version == 4 else 48
            return str(ip_network((ip, bits), strict=False).network_address)
        return ip

    def _row(
        self,
        event: Click | Impression,
        session: Session,
        device: Device,
        place: Place,
        visitor: bytes,
        flags: list[str],
        money: Money,
        currency: str,
    ) -> TouchRow:
        get = event.params.get
        first = Uuid(event.visitor) if event.visitor else None
        return TouchRow(
            Uuid(session.click_id),
            moment(ms_of(session.click_id)),
            node_of(session.click_id),
            session.offer_id,
            session.aff_id,
            session.landing_page_id,
            session.creative_id,
            event.alias,
            get("source", ""),
            get("aff_sub1", ""),
            get("aff_sub2", ""),
            get("aff_sub3", ""),
            get("aff_sub4", ""),
            get("aff_sub5", ""),
            get("aff_click_id", ""),
            get("utm_source", ""),
            get("utm_medium", ""),
            get("utm_campaign", ""),
            get("utm_content", ""),
            get("utm_term", ""),
            session.contact_id,
            self._packed_ip(session.ip),
            place.country,
            place.region,
            place.city,
            session.user_agent,
            device.device_type,
            device.device_brand,
            device.os,
            device.browser,
            event.language,
            event.referrer,
            first or Uuid(visitor),
            _cost(get("cost")),
            money.payout,
            money.revenue,
            currency,
            event.outcome,
            event.reason,
            flags,
            extras_of(event.params, self._not_extra),
            session.revision,
            first,
        )

    def _packed_ip(self, ip: str) -> bytes | None:
        stored = self.stored_ip(ip)
        if stored is None:
            return None
        try:
            return inet_pton(AF_INET6 if ":" in stored else AF_INET, stored)
        except OSError:  # an IPv6 scope, which Python's slower parser knows, or no address: ValueError
            return ip_address(stored).packed


def _is_unpaid(event: Click | Impression) -> bool:
    """Whether it earns nothing for its reason's sake."""
    if event.reason in UNPAID_BY_OFFER:
        return to_id(event.params.get("offer_id", "")) == event.session.offer_id
    return event.reason in UNPAID_REASONS


def _cost(text: str | None) -> Decimal:
    return (parse_amount(text) or ZERO) if text else ZERO
