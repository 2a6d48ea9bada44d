"""The catalog in force: one immutable snapshot, replaced whole.

It is built from stored bytes without decoding them. An item is decoded and compiled when it is first asked for, and
kept; the next snapshot takes over what did not change. So neither a swap nor a start grows with the catalog's size.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from edge.tracking.caps import Limits, limits_of
from edge.tracking.catalog_document import (
    Advertiser,
    Alias,
    Duplicates,
    Goal,
    Offer,
    Override,
    Partner,
    PayoutType,
    PromoCode,
    TermsPart,
    Tier,
)
from edge.tracking.macros import Template, compile_template
from edge.tracking.rotation import Rotation, compile_rotation
from edge.tracking.targeting import CompiledRule, compile_rules

Stored = tuple[str, str, bytes]
"""Table, id, body."""
Change = tuple[str, str, bytes | None]
"""Table, id, body; None: the item is gone."""


class Terms(NamedTuple):
    """What a conversion pays: the partner (payout) and us (revenue). Amounts in the offer's currency."""

    payout_type: PayoutType
    payout: Decimal
    payout_percent: Decimal
    revenue_type: PayoutType
    revenue: Decimal
    revenue_percent: Decimal
    duplicates: Duplicates
    tiers: tuple[Tier, ...] = ()
    """Only where the payout is the offer's own: a goal's or a partner's own payout has no tiers."""

    def tier(self, rank: int) -> int:
        """The tier of the partner's `rank`-th conversion of the month, by its `from_conversions`; 0: none."""
        return max((tier.from_conversions for tier in self.tiers if tier.from_conversions <= rank), default=0)

    def at_tier(self, from_conversions: int) -> "Terms":
        """The terms with that tier's payout; unchanged where there is no such tier."""
        for tier in self.tiers:
            if tier.from_conversions == from_conversions:
                payout = self.payout if tier.payout is None else tier.payout
                percent = self.payout_percent if tier.payout_percent is None else tier.payout_percent
                return self._replace(payout=payout, payout_percent=percent)
        return self


class AliasView(NamedTuple):
    """What a short link stands for."""

    kind: str
    params: dict[str, str]


class OfferView(Offer, frozen=True, kw_only=True):
    """An offer, compiled: URLs as templates, goals and overrides by key."""

    template: Template
    landing_templates: dict[int, Template]
    goals_by_id: dict[int, Goal]
    goals_by_name: dict[str, Goal]
    overrides_by_key: dict[tuple[int, int], Override]
    known_terms: dict[tuple[int, int], Terms]
    promo_by_code: dict[str, PromoCode]
    """By the code without its case."""
    expiry_ms: int
    cookie_name: str
    cookie_attributes: str
    limits: Limits
    open_until_ms: int
    """Before this millisecond it takes any click, in one way; 0: paused, expired, capped, or it depends on the click."""
    rotation: Rotation | None
    compiled_rules: tuple[CompiledRule, ...]

    def refusal(self, now_ms: int) -> str:
        """Why this offer takes no click now: `offer_expired`, `offer_paused`, or "" if it does."""
        if self.status == "expired" or 0 < self.expiry_ms <= now_ms:
            return "offer_expired"
        return "offer_paused" if self.status == "paused" else ""

    def template_of(self, landing_page_id: int) -> Template:
        """That landing page's template; the offer's own for any other id."""
        return self.landing_templates.get(landing_page_id, self.template)

    def override(self, aff_id: int, goal_id: int = 0) -> Override | None:
        """The partner's own terms for that goal (0: for whatever the offer pays)."""
        return self.overrides_by_key.get((aff_id, goal_id))

    def terms(self, goal_id: int, aff_id: int) -> Terms:
        """The terms in force; goal 0 is the offer itself.

        Later in this list wins, field by field: the offer, the goal, the partner's override, the partner's override
        for that very goal. An unknown goal or partner adds nothing.
        """
        overrides = [self.overrides_by_key.get((aff_id, 0))]
        if goal_id:
            overrides.append(self.overrides_by_key.get((aff_id, goal_id)))
        # Partners without an override share one entry, so the memory is bounded by the offer's own size.
        key = (goal_id if goal_id in self.goals_by_id else 0, aff_id if any(overrides) else 0)
        terms = self.known_terms.get(key)
        if terms is None:
            terms = self.known_terms[key] = _merge(self, self.goals_by_id.get(goal_id), *overrides)
        return terms


def _merge(offer: Offer, *parts: TermsPart | None) -> Terms:
    fields = {name: getattr(offer, name) for name in Terms._fields}
    for part in parts:
        for name in Terms._fields:
            value = getattr(part, name, None)
            if value is not None:
                fields[name] = value
                if name in ("payout", "payout_percent"):
                    fields["tiers"] = ()
    return Terms(**fields)


_decode_offer = msgspec.json.Decoder(Offer).decode
_decode_alias = msgspec.json.Decoder(Alias).decode


_FOR_EVER_MS = 2**63


def compile_offer(offer: Offer) -> OfferView:
    """The offer as requests need it."""
    limits, rotation = limits_of(offer), compile_rotation(offer.id, offer.landing_pages)
    # One without cookies goes the long way too: the short one need not ask.
    is_conditional = limits or rotation or offer.rules or offer.redirect != "302" or not offer.cookies
    return OfferView(
        **{name: getattr(offer, name) for name in offer.__struct_fields__},
        template=compile_template(offer.url),
        landing_templates={page.id: compile_template(page.url) for page in offer.landing_pages},
        goals_by_id={goal.id: goal for goal in offer.goals},
        goals_by_name={goal.name: goal for goal in offer.goals},
        overrides_by_key={(one.aff_id, one.goal_id): one for one in offer.overrides},
        known_terms={},
        promo_by_code={promo.code.casefold(): promo for promo in offer.promo_codes},
        expiry_ms=offer.expires_at_ms,
        cookie_name=f"ce_{offer.id}=",
        cookie_attributes=f"; Max-Age={offer.click_window_s}; Path=/; HttpOnly",
        limits=limits,
        open_until_ms=0 if offer.status != "active" or is_conditional else offer.expires_at_ms or _FOR_EVER_MS,
        rotation=rotation,
        compiled_rules=compile_rules(offer),
    )


def _compile_alias(body: bytes) -> AliasView:
    alias = _decode_alias(body)
    return AliasView(alias.kind, alias.params)


class Shelf:
    """One table: the stored bodies and what was compiled of them so far."""

    __slots__ = ("_compile", "_to_key", "bodies", "views")

    def __init__(self, compile_body: Callable[[bytes], Any], to_key: Callable[[str], int | str]) -> None:
        """`bodies` by stored id (text and bytes alone keep the garbage collector away); `views` by id, as text or number."""
        self._compile = compile_body
        self._to_key = to_key
        self.bodies: dict[str, bytes] = {}
        self.views: dict[int | str, Any] = {}

    def get(self, key: int | str) -> Any:
        """The compiled item; None if there is none of that id."""
        view = self.views.get(key)
        if view is None:
            item_id = str(key)
            body = self.bodies.get(item_id)
            if body is None:
                return None
            view = self.views.get(item_id) or self._compile(body)
            self.views[item_id] = self.views[self._to_key(item_id)] = view
        return view

    def emptied(self) -> "Shelf":
        """A shelf of the same kind with nothing on it."""
        return Shelf(self._compile, self._to_key)

    def copy(self) -> "Shelf":
        """A shelf with the same things on it, to be changed."""
        copy = self.emptied()
        copy.bodies, copy.views = self.bodies.copy(), self.views.copy()
        return copy

    def put(self, item_id: str, body: bytes | None) -> None:
        """Replace or remove one item; what was compiled of it is forgotten."""
        self.views.pop(self._to_key(item_id), None)
        self.views.pop(item_id, None)
        if body is None:
            self.bodies.pop(item_id, None)
        else:
            self.bodies[item_id] = body

    def take_over(self, other: "Shelf", item_id: str, body: bytes) -> None:
        """Put `body`, reusing the other shelf's bytes and compiled view if they are the same."""
        known = other.bodies.get(item_id)
        if known != body:
            self.bodies[item_id] = body
            return
        self.bodies[item_id] = known
        view = other.views.get(item_id)
        if view is not None:
            self.views[item_id] = self.views[self._to_key(item_id)] = view


def _empty_shelves() -> dict[str, Shelf]:
    return {
        "advertisers": Shelf(msgspec.json.Decoder(Advertiser).decode, int),
        "partners": Shelf(msgspec.json.Decoder(Partner).decode, int),
        "offers": Shelf(lambda body: compile_offer(_decode_offer(body)), int),
        "aliases": Shelf(_compile_alias, str),
    }


class Catalog:
    """One revision of advertisers, partners, offers and aliases. Look-ups never fail: None stands for unknown."""

    __slots__ = ("_shelves", "advertiser", "alias", "offer", "partner", "revision")

    def __init__(self, revision: int, shelves: dict[str, Shelf]) -> None:
        """`shelves` by table, not touched afterwards."""
        self.revision = revision
        self._shelves = shelves
        # By id, or by text that is exactly how we write that id.
        self.advertiser: Callable[[int | str], Advertiser | None] = shelves["advertisers"].get
        self.partner: Callable[[int | str], Partner | None] = shelves["partners"].get
        self.offer: Callable[[int | str], OfferView | None] = shelves["offers"].get
        self.alias: Callable[[str], AliasView | None] = shelves["aliases"].get
        """The short link of a path, given without its slash."""

    @classmethod
    def empty(cls) -> "Catalog":
        """Revision 0, with nothing in it."""
        return cls(0, _empty_shelves())

    def changed(self, revision: int, changes: Iterable[Change]) -> "Catalog":
        """The next revision; what did not change is shared, this snapshot stays as it is."""
        shelves = {kind: shelf.copy() for kind, shelf in self._shelves.items()}
        for kind, item_id, body in changes:
            if kind in shelves:
                shelves[kind].put(item_id, body)
        return Catalog(revision, shelves)

    def bodies(self, kind: str) -> Mapping[str, bytes]:
        """The stored bodies of a table by id."""
        return self._shelves[kind].bodies

    def builder(self) -> "CatalogBuilder":
        """Begins the next catalog: what is compiled here is taken over where the bytes are the same."""
        return CatalogBuilder(self._shelves)


class CatalogBuilder:
    """The next catalog, put together in portions so that the caller can let others run in between."""

    def __init__(self, previous: dict[str, Shelf]) -> None:
        """`previous`: the shelves of the catalog in force."""
        self._previous = previous
        self._next = _empty_shelves()

    def add(self, items: Iterable[Stored]) -> None:
        """Some of the items; tables of a later release are left out."""
        for kind, item_id, body in items:
            if kind in self._next:
                self._next[kind].take_over(self._previous[kind], item_id, body)

    def finish(self, revision: int) -> Catalog:
        """The catalog of all that was added."""
        return Catalog(revision, self._next)
