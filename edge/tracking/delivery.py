"""Which offer takes a click, and which page of it: refusals, rules, stand-ins, rotation. A click never fails for them."""

from functools import partial
from typing import NamedTuple

from edge.tracking import cookies
from edge.tracking.caps import cap_refusal
from edge.tracking.catalog import Catalog, OfferView
from edge.tracking.deep_links import find_location
from edge.tracking.macros import Template
from edge.tracking.parameters import to_id
from edge.tracking.request import Request
from edge.tracking.state import EdgeState
from edge.tracking.targeting import CompiledRule, Visit, find_rule
from edge.tracking.visitors import seed_of

MAX_REDIRECT_OFFERS = 3


class Seeds:
    """What a visitor's share of a rotation or percentage hangs on: one seed for each offer, worked out when asked for."""

    def __init__(self, state: EdgeState, request: Request) -> None:
        self._state = state
        self._request = request
        self._known: dict[int, bytes] = {}

    def find(self, offer: OfferView) -> bytes:
        """4 bytes: the cookie's, else made of the cookie's first click id, else of address and user agent."""
        seed = self._known.get(offer.id)
        if seed is None:
            seed = self._known[offer.id] = cookies.seed(self._request, offer, self._state.ids) or self._make(offer)
        return seed

    def found(self, offer: OfferView) -> bytes:
        """The seed, if anything about this offer hung on it, so that it must be the same next time; else empty."""
        return self._known.get(offer.id, b"")

    def _make(self, offer: OfferView) -> bytes:
        state, request = self._state, self._request
        first = cookies.first_click(request, offer, state.ids)
        return seed_of(first or state.visitors.name(request.client_ip, request.headers.user_agent))


class Delivery(NamedTuple):
    """Which offer takes the click, if any, and why it is not the one asked for (or whose partner is not known)."""

    offer: OfferView | None
    reason: str
    page_rule: CompiledRule | None
    """The rule that names a page of this offer."""
    notes: dict[str, str]
    """Kept with the click: `rule`, the rules that sent it on or away; `rule_reason`, the words of the first refusal."""


def deliver(state: EdgeState, request: Request, seeds: Seeds, offer_id: int, aff_id: int) -> Delivery:
    """Follow refusals to `redirect_offer_id` and rules to their offers, at most three steps."""
    catalog, visit = state.catalog, None
    notes: dict[str, str] = {}
    reason, over_cap, next_id = "", "", offer_id
    for _ in range(MAX_REDIRECT_OFFERS + 1):
        offer = catalog.offer(next_id)
        if offer is None:
            return Delivery(None, reason or "unknown_offer", None, notes)
        refused, rule = offer.refusal(request.received_ms), None
        if not refused and (over_cap := cap_refusal(state.capped, offer, aff_id, request.received_ms)):
            # Whatever its `cap_clicks`: as a stand-in an offer takes nothing beyond its caps.
            refused = over_cap if offer.cap_clicks == "redirect" or offer.id != offer_id else ""
        if offer.compiled_rules and not refused:
            visit = visit or Visit(request, state.enrichment)
            rule = find_rule(offer.compiled_rules, visit, partial(seeds.find, offer))
        if not refused and (rule is None or rule.names_page):
            return Delivery(offer, reason or partner_refusal(catalog, aff_id) or over_cap, rule, notes)
        if rule is not None:
            note_rule(notes, rule, offer, offer_id)
            refused = "targeting" if rule.reject else ""
        reason = reason or refused
        next_id = rule.offer_id if rule is not None and rule.offer_id else offer.redirect_offer_id
    return Delivery(None, reason or "targeting", None, notes)


def partner_refusal(catalog: Catalog, aff_id: int) -> str:
    """What is wrong about the partner; it never stops a click."""
    partner = catalog.partner(aff_id)
    if partner is None:
        return "unknown_partner"
    return "partner_blocked" if partner.status == "blocked" else ""


class Page(NamedTuple):
    """What an offer shows. Id 0: no landing page, but a deep link, the offer's own URL or a rule's."""

    landing_page_id: int
    template: Template
    deep_link: str = ""
    """Where `url=` asks to go, if the offer allows it: instead of the template."""
    rule: CompiledRule | None = None
    """The rule that chose it."""


def choose_page(offer: OfferView, rule: CompiledRule | None, request: Request, seeds: Seeds) -> Page:
    """What the link asks for (`url`, `url_id`), else the rule's page, else one by weight, else the offer's own URL."""
    deep_link = find_location(request.params["url"], offer.allowed_domains) if "url" in request.params else ""
    page_id = asked_page(offer, request)
    if page_id or deep_link:
        return Page(page_id, offer.template_of(page_id), deep_link)
    if rule is not None:
        return Page(rule.landing_page_id, rule.template or offer.template_of(rule.landing_page_id), rule=rule)
    page_id = offer.rotation.choose(partial(seeds.find, offer)) if offer.rotation is not None else 0
    return Page(page_id, offer.template_of(page_id))


def asked_page(offer: OfferView | None, request: Request) -> int:
    """The landing page that `url_id` asks for, if it is one of the offer's; else 0."""
    url_id = request.params.get("url_id")
    if not url_id:
        return 0
    page_id = to_id(url_id)
    return page_id if offer is not None and page_id in offer.landing_templates else 0


def note_rule(notes: dict[str, str], rule: CompiledRule, offer: OfferView, offer_id: int) -> None:
    """`2`: the second rule of the offer asked for; `18:1`: the first of offer 18; `2,18:1`: one after the other."""
    name = str(rule.position) if offer.id == offer_id else f"{offer.id}:{rule.position}"
    notes["rule"] = f"{notes['rule']},{name}" if "rule" in notes else name
    if rule.reject:
        notes.setdefault("rule_reason", rule.reject)


def rules_of(note: str, offer_id: int) -> list[tuple[int, int]]:
    """What `note_rule` wrote of a click on that offer: each rule's offer and position."""
    parts = (part.rpartition(":") for part in note.split(",") if part)
    return [(to_id(owner) or offer_id, to_id(position)) for owner, _, position in parts]
