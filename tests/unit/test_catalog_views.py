"""The catalog in force: look-ups, money terms, and what a new snapshot shares with the former one."""

from decimal import Decimal

import msgspec
import pytest

from edge.tracking.catalog import Catalog, OfferView

HOUR_MS = 3_600_000


def body(**fields: object) -> bytes:
    """An offer as it is stored."""
    defaults = {"id": 17, "advertiser_id": 1, "name": "O", "url": "https://shop.example.com/?c={transaction_id}"}
    return msgspec.json.encode({**defaults, **fields})


def view(**fields: object) -> OfferView:
    """The offer, compiled."""
    offer = Catalog.empty().changed(1, [("offers", "17", body(**fields))]).offer(17)
    assert offer is not None
    return offer


def test_an_empty_catalog_knows_nothing() -> None:
    """Every look-up answers None, none fails."""
    catalog = Catalog.empty()
    assert catalog.revision == 0
    assert (catalog.offer(0), catalog.partner(1), catalog.advertiser(2), catalog.alias("x")) == (None,) * 4


def test_items_are_found_by_id() -> None:
    """Each table has its own ids; an alias is its kind and its frozen parameters."""
    catalog = Catalog.empty().changed(
        3,
        [
            ("offers", "17", body()),
            ("partners", "2", b'{"id":2,"name":"P","status":"blocked"}'),
            ("advertisers", "1", b'{"id":1,"name":"A","security_token":"s"}'),
            ("aliases", "17", b'{"path":"17","kind":"click","params":{"offer_id":"17"}}'),
            ("of a later release", "1", b"{}"),
        ],
    )
    offer, partner, advertiser = catalog.offer(17), catalog.partner(2), catalog.advertiser(1)
    assert offer is not None
    assert partner is not None
    assert advertiser is not None
    assert (catalog.revision, offer.name, partner.status, advertiser.security_token) == (3, "O", "blocked", "s")
    assert catalog.alias("17") == ("click", {"offer_id": "17"})
    assert catalog.offer(2) is None


def test_urls_are_compiled() -> None:
    """The offer's own, and each landing page's; an unknown page has the offer's."""
    offer = view(landing_pages=[{"id": 1, "url": "https://shop.example.com/a?c={transaction_id}"}])
    values = {"transaction_id": "x"}
    assert offer.template_of(0).expand(values) == "https://shop.example.com/?c=x"
    assert offer.template_of(1).expand(values) == "https://shop.example.com/a?c=x"
    assert offer.template_of(2) is offer.template
    assert 1 in offer.landing_templates
    assert 0 not in offer.landing_templates


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({}, ""),
        ({"status": "paused"}, "offer_paused"),
        ({"status": "expired"}, "offer_expired"),
        ({"expires_at": "1970-01-01T01:00:00Z"}, "offer_expired"),
        ({"expires_at": "1970-01-01T01:00:00.001Z"}, ""),
        ({"status": "paused", "expires_at": "1970-01-01T00:00:01Z"}, "offer_expired"),
    ],
)
def test_an_offer_says_why_it_takes_no_click(fields: dict[str, object], refusal: str) -> None:
    """Expired from its very millisecond on, and expiry beats a pause."""
    assert view(**fields).refusal(HOUR_MS) == refusal


OVERRIDES = [{"aff_id": 2, "payout": "6.00"}, {"aff_id": 2, "goal_id": 1, "payout": "1.20"}]
GOALS = [{"id": 1, "name": "lead", "payout": "1.00", "duplicates": "new"}, {"id": 2, "name": "sale"}]


@pytest.mark.parametrize(
    ("goal_id", "aff_id", "payout", "duplicates"),
    [
        (0, 9, "5.00", "reject"),
        (0, 2, "6.00", "reject"),
        (1, 9, "1.00", "new"),
        (1, 2, "1.20", "new"),
        (2, 9, "5.00", "reject"),
        (2, 2, "6.00", "reject"),
        (99, 9, "5.00", "reject"),
    ],
)
def test_terms_of_offer_goal_and_partner_add_up(goal_id: int, aff_id: int, payout: str, duplicates: str) -> None:
    """Field by field the last that says something wins: offer, goal, partner, partner for that goal."""
    offer = view(payout="5.00", revenue="7.50", goals=GOALS, overrides=OVERRIDES)
    terms = offer.terms(goal_id, aff_id)
    assert (terms.payout, terms.revenue, terms.duplicates) == (Decimal(payout), Decimal("7.50"), duplicates)
    assert offer.terms(goal_id, aff_id) == terms


def test_terms_of_partners_without_an_override_are_kept_once() -> None:
    """A million partners do not grow an offer's memory."""
    offer = view(payout="5.00", goals=GOALS, overrides=OVERRIDES)
    for aff_id in range(1000):
        for goal_id in range(5):
            offer.terms(goal_id, aff_id)
    assert len(offer.known_terms) <= 2 * (1 + len(GOALS))


def test_the_next_revision_shares_what_did_not_change() -> None:
    """Compiled items live on by identity, changed ones are compiled anew, gone ones are gone, the old one stays."""
    old = Catalog.empty().changed(1, [("offers", str(number), body(id=number)) for number in (17, 18, 19)])
    before = old.offer(17), old.offer(18), old.offer(19)
    new = old.changed(2, [("offers", "18", body(id=18, name="new")), ("offers", "19", None), ("offers", "20", None)])
    changed = new.offer(18)
    assert new.offer(17) is before[0]
    assert changed is not None
    assert (changed.name, new.offer(19), new.revision) == ("new", None, 2)
    assert (old.offer(17), old.offer(18), old.offer(19)) == before


def test_a_rebuilt_catalog_shares_what_is_the_same() -> None:
    """Loading a whole snapshot keeps what was compiled and the bytes themselves wherever they are equal."""
    old = Catalog.empty().changed(1, [("offers", "17", body()), ("offers", "18", body(id=18))])
    kept, replaced = old.offer(17), old.offer(18)
    builder = old.builder()
    builder.add([("offers", "17", bytes(bytearray(body()))), ("later", "1", b"{}")])
    builder.add([("offers", "18", body(id=18, name="new"))])
    new = builder.finish(2)
    assert new.offer(17) is kept
    assert new.offer(18) is not replaced
    assert new.bodies("offers")["17"] is old.bodies("offers")["17"]
    assert new.revision == 2
