"""What a conversion is decided from, and what comes out. The views are what the verdict needs of the catalog."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

import msgspec

from edge.tracking.click_id import ms_of
from edge.tracking.payouts import ZERO, Terms
from edge.tracking.status_codes import DUPLICATE, DUPLICATE_UNIQUE_ID, Reason, Status, rejection_code
from storage.journal.events import Session, Via


class ConversionTerms(Terms, Protocol):
    """The money terms, and what becomes of a second conversion."""

    @property
    def duplicates(self) -> str: ...


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


class Touch(msgspec.Struct, frozen=True):
    """The click that a conversion is credited to."""

    click_id: bytes
    ms: int
    revision: int
    offer_id: int
    aff_id: int
    landing_page_id: int
    creative_id: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A decided conversion. A rejected one earns and claims nothing; its amount is kept for the record."""

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
            explanation="an earlier conversion came with this very signature",
        )

    def as_duplicate(self) -> "Verdict":
        """The verdict when one of the claims is held by another conversion."""
        by_unique_id = self.claims[:1] and self.claims[0].startswith("u:")
        return msgspec.structs.replace(
            self,
            status="rejected",
            reason="duplicate",
            status_code=DUPLICATE_UNIQUE_ID if by_unique_id else DUPLICATE,
            payout=ZERO,
            revenue=ZERO,
            claims=(),
            explanation=f"an earlier conversion holds {' '.join(self.claims)}",
        )


def touch_of(session: Session) -> Touch:
    """The touch that a click's session stands for."""
    return Touch(
        session.click_id,
        ms_of(session.click_id),
        session.revision,
        session.offer_id,
        session.aff_id,
        session.landing_page_id,
        session.creative_id,
    )
