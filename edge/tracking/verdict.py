"""What a conversion is decided from, and what comes out. The views are what the verdict needs of the catalog."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, Protocol

import msgspec

from edge.tracking.click_id import ms_of
from edge.tracking.payouts import ZERO, Money, Terms, conversion_money, round_money
from edge.tracking.status_codes import DUPLICATE, DUPLICATE_UNIQUE_ID, Reason, Status, rejection_code
from storage.journal.events import Conversion, Session, Via

TouchKind = Literal["click", "impression", "partner_id", "promo_code"]
"""What a conversion is credited to; the last two name a partner, and there was no touch."""


class ConversionTerms(Terms, Protocol):
    """The money terms, what becomes of a second conversion, and what more of them in a month earn."""

    @property
    def duplicates(self) -> str: ...
    def tier(self, rank: int) -> int: ...
    def at_tier(self, from_conversions: int) -> "ConversionTerms": ...


class GoalView(Protocol):
    @property
    def id(self) -> int: ...


class OfferView(Protocol):
    """What the verdict needs of an offer; `expires_at_ms` 0: never."""

    @property
    def status(self) -> str: ...
    @property
    def expires_at_ms(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def approval(self) -> str: ...
    @property
    def pixels(self) -> bool: ...
    @property
    def click_window_s(self) -> int: ...
    @property
    def impression_window_s(self) -> int: ...
    @property
    def min_seconds_to_convert(self) -> int: ...
    @property
    def advertiser_sets_amounts(self) -> bool: ...
    @property
    def goals_by_id(self) -> Mapping[int, GoalView]: ...
    @property
    def goals_by_name(self) -> Mapping[str, GoalView]: ...
    def terms(self, goal_id: int, aff_id: int) -> ConversionTerms: ...


class PartnerView(Protocol):
    @property
    def status(self) -> str: ...


class AdvertiserView(Protocol):
    """`security_token` and `signing_secret` may be empty: then none is required, and no token is valid."""

    @property
    def id(self) -> int: ...
    @property
    def signing_secret(self) -> str: ...
    @property
    def security_token(self) -> str: ...
    @property
    def allowed_ips(self) -> tuple[str, ...]: ...


class ConversionFacts(msgspec.Struct, frozen=True):
    """What was received; `goal_id` 0: the base conversion, unless the parameters name a goal."""

    conversion_id: bytes
    received_ms: int
    via: Via
    transaction_id: str
    goal_id: int
    params: Mapping[str, str]
    ip: str
    is_external: bool = False


class Touch(msgspec.Struct, frozen=True):
    """The click or view that a conversion is credited to; without one, `click_id` is empty and `ms` its receipt."""

    click_id: bytes
    ms: int
    revision: int
    offer_id: int
    aff_id: int
    landing_page_id: int
    creative_id: int
    kind: TouchKind = "click"
    named_id: bytes = b""
    """The touch that was named, where another is credited."""
    why: str = ""
    """Why this one, where it is not the click that was named."""


class Pricing(msgspec.Struct, frozen=True):
    """What a conversion's money follows from. None: not sent, or not the advertiser's to set."""

    terms: ConversionTerms
    amount: Decimal | None = None
    payout: Decimal | None = None
    revenue: Decimal | None = None

    def of(self, amount: Decimal, tier: int) -> Money:
        """What `amount` earns at that tier."""
        money = conversion_money(self.terms.at_tier(tier), amount)
        return Money(
            money.payout if self.payout is None else round_money(self.payout),
            money.revenue if self.revenue is None else round_money(self.revenue),
        )


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion asks of an earlier one: to take its status, or its amounts."""

    said: Status | Literal[""] = ""
    """The status that the advertiser sent."""
    mode: str = ""
    """`update` or `increment`, where the conversion was accepted and the offer says so."""
    click_id: bytes
    named_id: bytes = b""
    """The touch that was named, where another is credited by now: a conversion that came with it is meant before all."""
    goal_id: int
    seeks: tuple[str, ...] = ()
    """The keys of which one is held by the conversion meant; none: the latest of the click and goal."""
    event_id: str = ""
    """Then only one with this `adv_unique1`; "": any."""
    only_pending: bool = False
    """Then only one that is pending: what is approved already has nothing to do with this one."""
    is_manual: bool = False
    """No postback approves what a person has to decide."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A decided conversion. A rejected one earns nothing and claims at most its signature; its amount is kept for the record."""

    status: Status
    reason: Reason = ""
    status_code: int
    goal_id: int = 0
    converted_ms: int
    amount: Decimal = ZERO
    amount_note: str = ""
    """The amount as sent, when it is in another currency and so not in `amount`: `12.50 EUR`."""
    payout: Decimal = ZERO
    revenue: Decimal = ZERO
    currency: str = ""
    claims: tuple[str, ...] = ()
    """Keys that must all be free for this verdict to stand."""
    repeat_key: str = ""
    """A key that only tells whether this is the first of its click and goal."""
    ask: Ask | None = None
    pricing: Pricing | None = None
    tier: int = 0
    explanation: str

    def as_replay(self) -> "Verdict":
        """The verdict when the very signature was accepted before."""
        return msgspec.structs.replace(
            self,
            status="rejected",
            reason="replayed",
            status_code=rejection_code("replayed"),
            payout=ZERO,
            revenue=ZERO,
            claims=(),
            ask=None,
            explanation="an earlier conversion came with this very signature",
        )

    def as_duplicate(self) -> "Verdict":
        """The verdict when one of the claims is held by another conversion."""
        by_unique_id = self.claims[:1] and self.claims[0].startswith("u:")
        keys = [key for key in self.claims if not key.startswith("s:")]  # a signature is not shown
        return msgspec.structs.replace(
            self,
            status="rejected",
            reason="duplicate",
            status_code=DUPLICATE_UNIQUE_ID if by_unique_id else DUPLICATE,
            payout=ZERO,
            revenue=ZERO,
            claims=(),
            repeat_key="",
            explanation=f"an earlier conversion holds {' '.join(keys) or 'its place'}",
        )


def facts_of(event: Conversion) -> ConversionFacts:
    """What the verdict needs of the event."""
    return ConversionFacts(
        event.conversion_id,
        event.received_ms,
        event.via,
        event.transaction_id,
        event.goal_id,
        event.params,
        event.ip,
        event.is_external,
    )


def touch_of(session: Session, kind: TouchKind = "click", named_id: bytes = b"", why: str = "", ms: int = 0) -> Touch:
    """The touch that a session stands for. `ms`: its time, where it has no id that says so."""
    return Touch(
        session.click_id,
        ms or ms_of(session.click_id),
        session.revision,
        session.offer_id,
        session.aff_id,
        session.landing_page_id,
        session.creative_id,
        kind,
        named_id,
        why,
    )
