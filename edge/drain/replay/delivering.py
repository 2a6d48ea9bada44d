"""Where a stored click would be sent by given rules, and what it would earn. Device and place are as they were stored."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from edge.counters import Counters
from edge.drain.rows import INVALID_FLAGS, UNPAID_BY_OFFER, UNPAID_REASONS
from edge.tracking.caps import Capped, cap_refusal
from edge.tracking.catalog import Catalog, OfferView
from edge.tracking.click_id import ClickIds, ms_of
from edge.tracking.delivery import Seeds, deliver, partner_refusal
from edge.tracking.headers import Headers
from edge.tracking.payouts import ZERO, Money, click_money
from edge.tracking.request import Request
from edge.tracking.sessions import Sessions
from edge.tracking.state import EdgeState
from edge.tracking.surroundings import Device, Place
from edge.tracking.visitors import seed_of

Row = Mapping[str, Any]
NOTHING = Money(ZERO, ZERO)
DIRECT = "recorded"
_SENT = ("source", *(f"aff_sub{number}" for number in range(1, 6)))


class Way(NamedTuple):
    """Which offer takes a click (None: none does) and why it is not simply the one that was asked for."""

    offer: OfferView | None
    reason: str

    @property
    def key(self) -> tuple[int, str]:
        """What two ways are compared by; which page of the offer is shown changes nothing."""
        return (self.offer.id if self.offer else 0), self.reason


class _NoLease:
    """Nothing is minted."""

    start_ms = 0
    through_ms = 1 << 48

    def cover(self, ms: int) -> None:
        """Nothing to do."""


class _Seeds(Seeds):
    """The visitor's share of a percentage, by what is stored of it."""

    def __init__(self, visitor: bytes) -> None:
        self._seed = seed_of(visitor)

    def find(self, offer: OfferView) -> bytes:
        return self._seed


class _AsStored:
    """What was known of one click."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def device(self, user_agent: str) -> Device:
        row = self._row
        return Device(row["device_type"], row["device_brand"], row["os"], row["browser"])

    def place(self, ip: str) -> Place:
        return Place(self._row["country"], self._row["region"], self._row["city"])


class StoredClick:
    """A click as it was answered, to be sent again."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.asked = int(row["extras"].get("requested_offer_id", row["offer_id"]))
        self.ms = ms_of(row["click_id"].bytes)
        params = {**row["extras"], **{name: row[name] for name in _SENT if row[name]}}
        self._request = Request("GET", "/aff_c", params, Headers(row["user_agent"], language=row["language"]), "", True, self.ms)
        self._seeds = _Seeds(row["visitor"].bytes if row["visitor"] else b"")

    @property
    def is_valid(self) -> bool:
        """Whether a person clicked."""
        return INVALID_FLAGS.isdisjoint(self.row["flags"])

    def way(self, state: EdgeState, catalog: Catalog, capped: Capped) -> Way:
        """Where it goes by that catalog, with those caps reached."""
        state.catalog, state.capped, state.enrichment = catalog, capped, _AsStored(self.row)
        aff_id = self.row["aff_id"]
        if self.row["outcome"] != DIRECT:
            return Way(*deliver(state, self._request, self._seeds, self.asked, aff_id)[:2])
        offer = catalog.offer(self.asked)
        if offer is None:
            return Way(None, "unknown_offer")
        refused = offer.refusal(self.ms) or partner_refusal(catalog, aff_id)
        return Way(offer, refused or cap_refusal(capped, offer, aff_id, self.ms))

    def earnings(self, way: Way) -> Money:
        """What it earns there."""
        offer, reason = way
        is_unique = self.is_valid and "duplicate" not in self.row["flags"]
        is_unpaid = reason in UNPAID_REASONS or (reason in UNPAID_BY_OFFER and offer and offer.id == self.asked)
        if offer is None or not is_unique or is_unpaid:
            return NOTHING
        return click_money(offer.terms(0, self.row["aff_id"]))


def make_state() -> EdgeState:
    """What `way` puts its catalog, caps and surroundings into."""
    ids = ClickIds(["replay"], 0, 0, _NoLease())
    return EdgeState(Catalog.empty(), ids, Sessions(1), Counters.private())
