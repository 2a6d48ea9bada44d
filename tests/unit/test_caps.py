"""edge/tracking/caps.py and what clicks make of it: periods, limits, and where a capped click goes."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge.tracking.caps import EVER, PERIODS, Limit, cap_refusal, exceeds, is_reached, limits_for, span_of
from edge.tracking.catalog import Catalog, OfferView
from edge.tracking.catalog_file import CatalogFaults, read_catalog
from edge.tracking.click import handle_click, handle_impression
from edge.tracking.delivery import Seeds, deliver
from storage.journal.events import Click, Impression, decode
from tests.wire.edge_state import NOW_MS, build_catalog, build_state, request_of

LATER_MS = NOW_MS + 60_000
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "America/Havana", "Africa/Cairo"]
CATALOG = """
advertisers = [{ id = 1, name = "A" }]
partners = [{ id = 2, name = "P" }, { id = 3, name = "Q" }, { id = 4, name = "B", status = "blocked" }]

[[offers]]
id = 17
advertiser_id = 1
name = "capped"
url = "https://o17.example.com/"
caps = { daily_conversions = 100, monthly_payout = "5000.00" }
overrides = [{ aff_id = 3, caps = { total_clicks = 5 } }]
redirect_offer_id = 18

[[offers]]
id = 18
advertiser_id = 1
name = "stand-in with a cap of its own"
url = "https://o18.example.com/"
caps = { total_clicks = 9 }
cap_clicks = "allow"

[[offers]]
id = 19
advertiser_id = 1
name = "plain"
url = "https://o19.example.com/"
expires_at = "2099-01-01"
"""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def offer(offer_id: int = 17, catalog: Catalog | None = None) -> OfferView:
    found = (catalog or build_catalog(CATALOG)).offer(offer_id)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("period", "hour", "zone", "start", "end"),
    [
        ("daily", "2026-11-22T23:00", "UTC", "2026-11-22T00:00", "2026-11-23T00:00"),
        ("daily", "2026-11-22T23:00", "Europe/Berlin", "2026-11-22T23:00", "2026-11-23T23:00"),
        ("daily", "2026-03-29T10:00", "Europe/Berlin", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("daily", "2026-10-25T10:00", "Europe/Berlin", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("daily", "2026-11-22T18:00", "Asia/Kolkata", "2026-11-21T19:00", "2026-11-22T19:00"),
        ("daily", "2026-11-22T19:00", "Asia/Kolkata", "2026-11-22T19:00", "2026-11-23T19:00"),
        ("weekly", "2026-11-22T23:00", "UTC", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("weekly", "2026-11-22T23:00", "Europe/Berlin", "2026-11-22T23:00", "2026-11-29T23:00"),
        ("monthly", "2026-12-31T23:00", "UTC", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("monthly", "2026-12-31T23:00", "Europe/Berlin", "2026-12-31T23:00", "2027-01-31T23:00"),
        ("monthly", "2024-02-29T00:00", "UTC", "2024-02-01T00:00", "2024-03-01T00:00"),
        ("total", "2026-11-22T23:00", "Europe/Berlin", "1970-01-01T00:00", "9999-01-01T00:00"),
    ],
)
def test_periods_begin_at_midnight_of_the_zone(period: str, hour: str, zone: str, start: str, end: str) -> None:
    """Days of 23 and 25 hours, weeks from Monday, months of any length; in half-hour zones the first full hour."""
    assert span_of(period, at(hour), ZoneInfo(zone)) == (at(start), at(end))


@given(st.integers(0, 24 * 365 * 60), st.sampled_from(ZONES), st.sampled_from(PERIODS))
def test_every_hour_is_in_one_period(number: int, zone: str, period: str) -> None:
    """The hour's period holds it, and the next hour's is the same or follows without a gap."""
    hours = [datetime(1990, 1, 1, tzinfo=UTC) + timedelta(hours=number + ahead) for ahead in range(30)]
    spans = [span_of(period, hour, ZoneInfo(zone)) for hour in hours]
    for hour, span in zip(hours, spans, strict=True):
        assert span.start <= hour < span.end <= EVER
    for before, after in pairwise(spans):
        assert after in (before, (before.end, after.end))


def test_an_offers_limits_are_its_own_and_the_partners() -> None:
    """What is not given is no limit; another partner has only the offer's."""
    limits = offer().limits
    whole = (Limit(0, "daily", "conversions", 100), Limit(0, "monthly", "payout", Decimal(5000)))
    assert limits_for(limits, 2) == limits_for(limits, 0) == whole
    assert limits_for(limits, 3) == (*whole, Limit(3, "total", "clicks", 5))
    assert offer(19).limits == {}
    assert limits[0][1].name == "monthly_payout = 5000.00 of the offer"
    assert limits[3][0].name == "total_clicks = 5 of partner 3"


def test_an_offer_with_any_cap_is_asked_at_each_click() -> None:
    """A plain offer is not: it takes every click until it expires."""
    assert (offer(17).open_until_ms, offer(18).open_until_ms) == (0, 0)
    assert offer(19).open_until_ms > NOW_MS


def test_a_cap_is_reached_when_nothing_more_fits() -> None:
    """And exceeded by what is more than is left; what adds nothing always fits, also where too much was used."""
    limit = Limit(0, "daily", "payout", Decimal(10))
    assert [is_reached(limit, Decimal(used)) for used in ("9.999999", "10", "11")] == [False, True, True]
    assert not exceeds(limit, Decimal("9.5"), Decimal("0.5"))
    assert exceeds(limit, Decimal("9.5"), Decimal("0.500001"))
    assert not exceeds(limit, Decimal(11), Decimal(0))
    assert is_reached(limit._replace(cap=0), 0)


def test_caps_of_a_partner_for_one_goal_only_are_refused() -> None:
    """Nothing would count them."""
    wrong = CATALOG.replace(
        "overrides = [{ aff_id = 3,", 'goals = [{ id = 1, name = "g" }]\noverrides = [{ aff_id = 3, goal_id = 1,'
    )
    with pytest.raises(CatalogFaults, match=r"overrides\[3\]\.caps: belong to a partner's override without goal_id"):
        read_catalog(wrong, "catalog.toml", Catalog.empty())


@pytest.mark.parametrize(
    ("capped", "aff_id", "expected"),
    [
        ({}, 2, ""),
        ({(17, 0): LATER_MS}, 2, "capped"),
        ({(17, 0): NOW_MS}, 2, ""),
        ({(17, 3): LATER_MS}, 2, ""),
        ({(17, 3): LATER_MS}, 3, "capped"),
        ({(17, 0): NOW_MS, (17, 3): LATER_MS}, 3, "capped"),
        ({(18, 0): LATER_MS}, 2, ""),
    ],
)
def test_a_worker_believes_what_was_published_until_the_period_is_over(
    capped: dict[tuple[int, int], int], aff_id: int, expected: str
) -> None:
    """A cap of the offer or of that very partner; at the end of the period the offer is open again by itself."""
    assert cap_refusal(capped, offer(), aff_id, NOW_MS) == expected


def test_a_cap_that_is_not_in_the_catalog_any_more_stops_nothing() -> None:
    """The catalog is there first; the published state follows a second later."""
    assert cap_refusal({(19, 0): LATER_MS}, offer(19), 2, NOW_MS) == ""


def where(capped: dict[tuple[int, int], int], offer_id: int = 17, aff_id: int = 2) -> tuple[int, str]:
    state = build_state(build_catalog(CATALOG))
    state.capped = capped
    request = replace(request_of(f"offer_id={offer_id}&aff_id={aff_id}"), received_ms=NOW_MS)
    delivery = deliver(state, request, Seeds(state, request), offer_id, aff_id)
    return delivery.offer.id if delivery.offer else 0, delivery.reason


@pytest.mark.parametrize(
    ("capped", "offer_id", "aff_id", "expected"),
    [
        ({}, 17, 2, (17, "")),
        ({(17, 0): LATER_MS}, 17, 2, (18, "capped")),
        ({(17, 3): LATER_MS}, 17, 2, (17, "")),
        ({(17, 3): LATER_MS}, 17, 3, (18, "capped")),
        ({(17, 0): LATER_MS}, 17, 4, (18, "capped")),
        ({(17, 0): LATER_MS, (18, 0): LATER_MS}, 17, 2, (0, "capped")),
        ({(18, 0): LATER_MS}, 18, 2, (18, "capped")),
        ({(18, 0): LATER_MS}, 18, 4, (18, "partner_blocked")),
    ],
)
def test_a_capped_click_goes_to_the_stand_in_or_through(
    capped: dict[tuple[int, int], int], offer_id: int, aff_id: int, expected: tuple[int, str]
) -> None:
    """`redirect`: as from a paused offer. `allow`: to the offer, with the reason; but no stand-in goes beyond its cap."""
    assert where(capped, offer_id, aff_id) == expected


def event_of(handled: Any, kind: type[Any]) -> Any:
    event = decode(handled.event)
    assert isinstance(event, kind)
    return event


def test_a_capped_click_without_a_stand_in_goes_to_the_fallback() -> None:
    """Else it is refused as any click that no offer takes; the reason is recorded."""
    body = {"id": 30, "advertiser_id": 1, "name": "O", "url": "https://o.example.com/", "caps": {"total_clicks": 1}}
    catalog = build_catalog(CATALOG).changed(8, [("offers", "30", msgspec.json.encode(body))])
    for fallback, outcome, status in (("https://fallback.example.com/", "fallback", 302), ("", "rejected", 404)):
        state = build_state(catalog, fallback=fallback)
        state.capped = {(30, 0): LATER_MS}
        handled = handle_click(state, request_of("offer_id=30&aff_id=2"), "")
        event = event_of(handled, Click)
        assert (event.outcome, event.reason, handled.answer.status) == (outcome, "capped", status)
        assert event.session.offer_id == 30


def test_impressions_are_never_capped() -> None:
    """An ad was seen, whatever is left of the budget."""
    state = build_state(CATALOG)
    state.capped = {(17, 0): LATER_MS}
    event = event_of(handle_impression(state, request_of("offer_id=17&aff_id=2", path="/aff_i"), ""), Impression)
    assert (event.outcome, event.reason, event.session.offer_id) == ("recorded", "", 17)
