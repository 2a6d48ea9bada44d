"""The verdict, branch by branch, on the catalog's own offers."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.attribution import decide, parse_datetime
from edge.tracking.catalog import OfferView, compile_offer
from edge.tracking.catalog_document import Advertiser, Goal, Offer, Override, Partner
from edge.tracking.status_codes import REJECTIONS, STATUS_CODES
from edge.tracking.verdict import ConversionFacts, Touch, Verdict, touch_of
from storage.journal.events import Session

CLICK_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
CLICK_ID = CLICK_MS.to_bytes(6, "big") + bytes([0x70, 0, 0x80]) + bytes(7)
TOUCH = Touch(CLICK_ID, CLICK_MS, 3, 17, 2, 0, 0)
GOAL = Goal(id=1, name="lead", payout=Decimal(1), duplicates="new")
PARTNER = Partner(id=2, name="Deal Blog")
OPEN = Advertiser(id=1, name="Outletforce")
GUARDED = Advertiser(id=1, name="Outletforce", security_token="s3cret-ü", allowed_ips=("203.0.113.0/24",))
SIGNING = Advertiser(id=1, name="Outletforce", signing_secret="s3cret-ü")
GUARDED_IP = "203.0.113.7"


def offer(**fields: Any) -> OfferView:
    values: dict[str, Any] = {"payout": Decimal(5), "revenue": Decimal("7.5"), "goals": (GOAL,)} | fields
    return compile_offer(Offer(id=17, advertiser_id=1, name="Decor", url="https://shop.example.com/", **values))


PERCENTAGE = offer(payout_type="cpa_percentage", payout_percent=Decimal(10))


def sent(
    after_ms: int = HOUR_MS, via: Any = "postback", resolved: int = 0, ip: str = "", **params: str
) -> ConversionFacts:
    return ConversionFacts(bytes(16), CLICK_MS + after_ms, via, CLICK_ID.hex(), resolved, params, ip)


def verdict_on(facts: ConversionFacts, its_offer: OfferView | None = None, **others: Any) -> Verdict:
    its_offer = its_offer or offer()
    values: dict[str, Any] = {
        "touch": TOUCH,
        "click_offer": its_offer,
        "offer": its_offer,
        "partner": PARTNER,
        "advertiser": OPEN,
        "forged": False,
    }
    return decide(facts, **(values | others))


def test_a_plain_postback_is_approved_and_claims_its_click() -> None:
    """Money by the terms, TUNE's 43, one key."""
    verdict = verdict_on(sent(amount="19.99"))
    assert (verdict.status, verdict.reason, verdict.status_code) == ("approved", "", 43)
    assert (verdict.amount, verdict.payout, verdict.revenue) == (Decimal("19.99"), 5, Decimal("7.5"))
    assert (verdict.currency, verdict.claims) == ("USD", (f"c:{CLICK_ID.hex()}:0",))
    assert verdict.converted_ms == CLICK_MS + HOUR_MS
    assert verdict.explanation == "1:00:00 after the click, by postback"


def test_a_pixel_is_approved_with_its_own_code_whatever_the_token() -> None:
    """Token and addresses guard server postbacks only."""
    verdict = verdict_on(sent(via="pixel"), advertiser=GUARDED)
    assert (verdict.status, verdict.status_code) == ("approved", 41)


def test_manual_approval_leaves_a_conversion_pending_with_its_money_and_claims() -> None:
    """TUNE's 31; a pending one blocks duplicates as an approved one does."""
    verdict = verdict_on(sent(), offer(approval="manual"))
    assert (verdict.status, verdict.status_code, verdict.payout) == ("pending", 31, 5)
    assert verdict.claims == (f"c:{CLICK_ID.hex()}:0",)


EXPIRES = datetime.fromtimestamp((CLICK_MS + HOUR_MS) // 1000, UTC)
REJECTED = [
    ("forged_id", 201, sent(), {"forged": True}),
    ("unknown_click", 202, sent(), {"touch": None}),
    ("unknown_offer", 203, sent(), {"offer": None}),
    ("unknown_offer", 203, sent(), {"click_offer": None}),
    ("unknown_offer", 203, sent(), {"advertiser": None}),
    ("pixel_refused", 15, sent(via="pixel"), {"its_offer": offer(pixels=False)}),
    ("bad_token", 19, sent(ip=GUARDED_IP), {"advertiser": GUARDED}),
    ("bad_token", 19, sent(ip=GUARDED_IP, security_token="s3cret"), {"advertiser": GUARDED}),
    ("bad_token", 19, sent(ip=GUARDED_IP, security_token="\ud800"), {"advertiser": GUARDED}),
    ("ip_not_allowed", 14, sent(ip="198.51.100.1", security_token="s3cret-ü"), {"advertiser": GUARDED}),
    ("ip_not_allowed", 14, sent(security_token="s3cret-ü"), {"advertiser": GUARDED}),
    ("bad_signature", 220, sent(), {"advertiser": SIGNING}),
    ("bad_signature", 220, sent(timestamp="1", signature="0" * 64), {"advertiser": SIGNING}),
    ("offer_inactive", 204, sent(), {"its_offer": offer(status="expired")}),
    ("offer_inactive", 204, sent(HOUR_MS), {"its_offer": offer(expires_at=EXPIRES)}),
    ("unknown_partner", 205, sent(), {"partner": None}),
    ("partner_blocked", 206, sent(), {"partner": Partner(id=2, name="Deal Blog", status="blocked")}),
    ("outside_window", 207, sent(30 * DAY_MS + 1), {}),
    ("too_soon", 208, sent(59_999), {"its_offer": offer(min_seconds_to_convert=60)}),
    ("too_soon", 208, sent(-5), {"its_offer": offer(min_seconds_to_convert=1)}),
    ("unknown_goal", 209, sent(resolved=9), {}),
    ("unknown_goal", 209, sent(goal_id="9"), {}),
    ("invalid_amount", 210, sent(amount="1e999"), {}),
    ("invalid_amount", 210, sent(amount="-5"), {}),
    ("invalid_amount", 210, sent(payout="x"), {"its_offer": offer(advertiser_sets_amounts=True)}),
    ("invalid_amount", 210, sent(revenue="1,50"), {"its_offer": offer(advertiser_sets_amounts=True)}),
    (
        "invalid_amount",
        210,
        sent(amount="999999999999"),
        {"its_offer": offer(payout_type="cpa_percentage", payout_percent=Decimal(200))},
    ),
    ("currency_mismatch", 211, sent(amount="5", currency="EUR"), {"its_offer": PERCENTAGE}),
    (
        "currency_mismatch",
        211,
        sent(payout="5", currency="EUR"),
        {"its_offer": offer(advertiser_sets_amounts=True)},
    ),
    ("advertiser", 212, sent(status="rejected"), {}),
    ("advertiser", 212, sent(status="Reversed"), {"its_offer": offer(approval="manual")}),
]


@pytest.mark.parametrize(("reason", "code", "facts", "others"), REJECTED)
def test_each_fault_has_its_reason_and_code(reason: str, code: int, facts: ConversionFacts, others: Any) -> None:
    """A rejected conversion earns nothing, claims nothing and says why."""
    verdict = verdict_on(facts, **others)
    assert (verdict.status, verdict.reason, verdict.status_code) == ("rejected", reason, code)
    assert (verdict.payout, verdict.revenue, verdict.claims) == (0, 0, ())
    assert verdict.explanation
    assert "s3cret" not in verdict.explanation


def test_every_reason_but_the_databases_own_is_tried_above() -> None:
    """`duplicate`, `replayed` and `capped` are found by the caller."""
    assert {row[0] for row in REJECTED} == set(REJECTIONS) - {"duplicate", "replayed", "capped"}


def test_the_first_fault_in_order_wins() -> None:
    """With everything wrong at once, mending one fault brings up the next."""
    everything: dict[str, Any] = {
        "its_offer": offer(
            status="expired",
            pixels=False,
            min_seconds_to_convert=10**9,
            payout_type="cpa_percentage",
            payout_percent=Decimal(10),
        ),
        "partner": None,
        "advertiser": GUARDED,
    }
    facts = sent(40 * DAY_MS, resolved=9, amount="x", currency="EUR")
    assert verdict_on(facts, forged=True, touch=None).reason == "forged_id"
    assert verdict_on(facts, touch=None, offer=None).reason == "unknown_click"
    assert verdict_on(facts, **everything).reason == "bad_token"
    assert verdict_on(sent(via="pixel", amount="x"), **everything).reason == "pixel_refused"
    assert verdict_on(facts, **(everything | {"advertiser": OPEN})).reason == "offer_inactive"
    strict = offer(min_seconds_to_convert=10**9, payout_type="cpa_percentage", payout_percent=Decimal(10))
    assert verdict_on(facts, strict, partner=None).reason == "unknown_partner"
    assert verdict_on(facts, strict).reason == "outside_window"
    soon = sent(resolved=9, amount="x", currency="EUR")
    assert verdict_on(soon, strict).reason == "too_soon"
    assert verdict_on(soon, PERCENTAGE).reason == "unknown_goal"
    assert verdict_on(sent(amount="x", currency="EUR"), PERCENTAGE).reason == "invalid_amount"


def test_the_right_token_from_an_allowed_address_passes() -> None:
    """Tokens are compared as UTF-8."""
    assert verdict_on(sent(ip=GUARDED_IP, security_token="s3cret-ü"), advertiser=GUARDED).status == "approved"


def test_the_ends_of_the_window_count() -> None:
    """Exactly the window after the click is inside; exactly `min_seconds_to_convert` is enough."""
    assert verdict_on(sent(30 * DAY_MS)).status == "approved"
    assert verdict_on(sent(60_000), offer(min_seconds_to_convert=60)).status == "approved"


def test_a_receipt_before_the_click_is_a_clock_not_a_fault() -> None:
    """Ids run ahead of the clock under load, and nodes' clocks differ."""
    assert verdict_on(sent(-1500)).status == "approved"


def test_the_clicks_revision_decides_the_window() -> None:
    """A window shortened after the click does not take its conversion away."""
    assert verdict_on(sent(10 * DAY_MS), offer(click_window_s=86_400), click_offer=offer()).status == "approved"
    assert verdict_on(sent(10 * DAY_MS), offer(), click_offer=offer(click_window_s=86_400)).reason == "outside_window"


def test_a_paused_offer_still_earns_and_an_expiring_one_until_it_does() -> None:
    """`offer_inactive` is for expired offers."""
    assert verdict_on(sent(), offer(status="paused")).status == "approved"
    assert verdict_on(sent(HOUR_MS - 1), offer(expires_at=EXPIRES)).status == "approved"


@pytest.mark.parametrize(
    "facts", [sent(resolved=1), sent(goal_name="lead"), sent(goal_id="1"), sent(5, goal_name="lead")]
)
def test_a_goal_is_found_by_id_or_name(facts: ConversionFacts) -> None:
    """Also when the worker did not know the offer and so could not resolve it."""
    verdict = verdict_on(facts)
    assert (verdict.status, verdict.goal_id, verdict.payout) == ("approved", 1, 1)


def test_a_goals_name_beats_an_id_resolved_for_another_offer() -> None:
    """A worker without the session resolves the name in the postback's offer; the click's offer decides."""
    assert verdict_on(sent(goal_name="sale")).reason == "unknown_goal"
    facts = ConversionFacts(bytes(16), CLICK_MS, "postback", "", 7, {"goal_name": "lead"}, "")
    assert verdict_on(facts).goal_id == 1


def test_a_partners_own_terms_pay_that_partner() -> None:
    """The override of the click's partner."""
    assert verdict_on(sent(), offer(overrides=(Override(aff_id=2, payout=Decimal(6)),))).payout == 6


def test_amounts_set_by_the_advertiser_count_only_where_the_offer_says_so() -> None:
    """One that is not sent stays by the terms."""
    facts = sent(payout="1.25")
    assert verdict_on(facts).payout == 5
    verdict = verdict_on(facts, offer(advertiser_sets_amounts=True))
    assert (verdict.payout, verdict.revenue) == (Decimal("1.25"), Decimal("7.5"))
    both = verdict_on(sent(payout="0", revenue="2"), offer(advertiser_sets_amounts=True))
    assert (both.payout, both.revenue) == (0, 2)


def test_a_flat_conversion_in_another_currency_keeps_its_amount_out_of_the_money() -> None:
    """Reports never add across currencies; what was sent is noted."""
    verdict = verdict_on(sent(amount="12.50", currency="EUR"))
    assert (verdict.status, verdict.amount, verdict.amount_note, verdict.payout) == ("approved", 0, "12.50 EUR", 5)
    same = verdict_on(sent(amount="12.50", currency="usd"), PERCENTAGE)
    assert (same.amount, same.amount_note, same.payout) == (Decimal("12.5"), "", Decimal("1.25"))


@pytest.mark.parametrize(
    ("duplicates", "params", "claims"),
    [
        ("reject", {}, (f"c:{CLICK_ID.hex()}:0",)),
        ("update", {}, (f"c:{CLICK_ID.hex()}:0",)),
        ("increment", {}, (f"c:{CLICK_ID.hex()}:0",)),
        ("by_event_id", {"adv_unique1": "order 7"}, (f"e:{CLICK_ID.hex()}:0:order 7",)),
        ("by_event_id", {}, (f"e:{CLICK_ID.hex()}:0:",)),
        ("new", {}, ()),
        ("new_repeated", {}, ()),
        ("reject", {"conversion_unique_id": "A-1"}, ("u:A-1",)),
        ("new", {"conversion_unique_id": "A-1"}, ("u:A-1",)),
    ],
)
def test_the_offers_mode_decides_what_is_claimed(
    duplicates: Any, params: dict[str, str], claims: tuple[str, ...]
) -> None:
    """A conversion_unique_id, when sent, is the only key, whatever the mode."""
    assert verdict_on(sent(**cast(Any, params)), offer(duplicates=duplicates)).claims == claims


def test_a_goal_claims_apart_and_in_its_own_mode() -> None:
    """The goal here says `new`, the offer `reject`."""
    assert verdict_on(sent(resolved=1)).claims == ()
    plain_goal = offer(goals=(Goal(id=1, name="lead"),))
    assert verdict_on(sent(resolved=1), plain_goal).claims == (f"c:{CLICK_ID.hex()}:1",)


def test_a_long_unique_id_is_claimed_by_its_hash() -> None:
    """An index entry has a limit; two long ids that differ at the end still differ."""
    first, second = (verdict_on(sent(conversion_unique_id="x" * 5000 + end)).claims for end in "ab")
    assert first != second
    assert len(first[0]) < 100


@pytest.mark.parametrize(("params", "code"), [({}, 12), ({"conversion_unique_id": "A-1"}, 18)])
def test_a_held_claim_makes_a_duplicate(params: dict[str, str], code: int) -> None:
    """It keeps its amount for the record, earns and claims nothing."""
    verdict = verdict_on(sent(amount="9", **cast(Any, params)))
    duplicate = verdict.as_duplicate()
    assert (duplicate.status, duplicate.reason, duplicate.status_code) == ("rejected", "duplicate", code)
    assert (duplicate.amount, duplicate.payout, duplicate.revenue, duplicate.claims) == (9, 0, 0, ())
    assert verdict.claims[0] in duplicate.explanation


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-21T10:00:00Z", 1795255200000),
        ("2026-11-21T10:00:00.250Z", 1795255200250),
        ("2026-11-21T12:00:00+02:00", 1795255200000),
        ("2026-11-21 10:00:00", 1795255200000),
        ("1795255200", 1795255200000),
        ("0001-01-01T00:00:00+23:59", -62135683140000),
        ("9999-12-31T23:59:59-23:59", 253402387139000),
        ("", None),
        ("yesterday", None),
        ("2026-13-01", None),
        ("1795255200000000", None),
        ("١٧٩٥٢٥٥٢٠٠", None),
    ],
)
def test_times_are_read_in_three_writings(text: str, ms: int | None) -> None:
    """ISO 8601, `YYYY-MM-DD HH:MM:SS` in UTC, Unix seconds."""
    assert parse_datetime(text) == ms


@pytest.mark.parametrize(
    ("seconds_after_click", "token", "is_used"),
    [
        (60, "s3cret-ü", True),
        (0, "s3cret-ü", True),
        (3600, "s3cret-ü", True),
        (60, "wrong", False),
        (-1, "s3cret-ü", False),
        (3601, "s3cret-ü", False),
    ],
)
def test_a_datetime_counts_with_a_valid_token_between_click_and_receipt(
    seconds_after_click: int, token: str, is_used: bool
) -> None:
    """Otherwise the receipt counts, and the explanation says that it does."""
    facts = sent(via="pixel", datetime=str(CLICK_MS // 1000 + seconds_after_click), security_token=token)
    verdict = verdict_on(facts, advertiser=GUARDED)
    assert verdict.converted_ms == (CLICK_MS + seconds_after_click * 1000 if is_used else facts.received_ms)
    assert ("datetime was not used" in verdict.explanation) != is_used


def test_an_advertiser_without_a_token_has_no_valid_one() -> None:
    """An empty token sent to an advertiser without one proves nothing."""
    facts = sent(datetime=str(CLICK_MS // 1000 + 60), security_token="")
    assert verdict_on(facts).converted_ms == facts.received_ms


def test_a_touch_is_read_from_a_session() -> None:
    """Its time is the id's."""
    assert touch_of(Session(CLICK_ID, 3, 17, 2, 0, 0, "", "", "")) == TOUCH


NAMES = ["amount", "currency", "payout", "revenue", "datetime", "goal_id", "goal_name", "security_token"]
NAMES += ["conversion_unique_id", "adv_unique1", "status"]
VALUES = st.sampled_from(
    ["approved", "reversed", "0", "1", "9.99", "EUR", "usd", "lead", "s3cret-ü", "1790000060"]
) | st.text(max_size=12)
OFFERS = st.builds(
    offer,
    status=st.sampled_from(["active", "paused", "expired"]),
    payout_type=st.sampled_from(["cpa_flat", "cpa_percentage", "cpa_both", "cpc", "cpm"]),
    payout_percent=st.decimals(0, 1000, places=2),
    approval=st.sampled_from(["auto", "manual"]),
    duplicates=st.sampled_from(["reject", "new", "new_repeated", "update", "increment", "by_event_id"]),
    advertiser_sets_amounts=st.booleans(),
    pixels=st.booleans(),
    min_seconds_to_convert=st.sampled_from([0, 60]),
)
FACTS = st.builds(
    ConversionFacts,
    conversion_id=st.just(bytes(16)),
    received_ms=st.sampled_from([CLICK_MS + HOUR_MS]) | st.integers(0, 2**48 - 1),
    via=st.sampled_from(["postback", "pixel"]),
    transaction_id=st.just(CLICK_ID.hex()),
    goal_id=st.sampled_from([0, 1, 2]),
    params=st.dictionaries(st.sampled_from(NAMES), VALUES),
    ip=st.sampled_from([GUARDED_IP, "198.51.100.1", ""]) | st.text(max_size=12),
)
CODES = {(row.code, row.status, row.reason) for row in STATUS_CODES}


@given(
    FACTS,
    OFFERS,
    OFFERS,
    st.sampled_from([None, TOUCH, TOUCH, TOUCH]),
    st.sampled_from([None, PARTNER, PARTNER, PARTNER]),
    st.sampled_from([None, OPEN, OPEN, GUARDED]),
    st.sampled_from([True, False, False, False]),
)
def test_no_input_raises_and_every_verdict_is_consistent(
    facts: ConversionFacts,
    click_offer: OfferView,
    its_offer: OfferView,
    touch: Touch | None,
    partner: Partner | None,
    advertiser: Advertiser | None,
    forged: bool,
) -> None:
    """Code, status and reason are a row of the table; only approved and pending ones earn and claim; money fits."""
    verdict = decide(facts, touch, click_offer, its_offer, partner, advertiser, forged=forged)
    assert (verdict.status_code, verdict.status, verdict.reason) in CODES
    assert all(0 <= money < 10**12 for money in (verdict.amount, verdict.payout, verdict.revenue))
    assert touch is None or touch.ms <= verdict.converted_ms or verdict.converted_ms == facts.received_ms
    if verdict.status == "rejected":
        assert (verdict.payout, verdict.revenue, verdict.claims) == (0, 0, ())
        return
    is_free = its_offer.terms(verdict.goal_id, TOUCH.aff_id).duplicates in ("new", "new_repeated")
    assert len(verdict.claims) == (not is_free or bool(facts.params.get("conversion_unique_id")))
    if verdict.claims:
        assert verdict.as_duplicate().status_code == (18 if verdict.claims[0].startswith("u:") else 12)
