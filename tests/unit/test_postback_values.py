"""What the macros of a partner's postback stand for."""

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha1
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.sender.delivery import compose
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Advertiser, Creative, Goal, Offer, Partner, encode_item
from edge.tracking.postback_values import Facts
from storage.postgres.outbox import Due

CONVERSION_ID = UUID("01a2004f81c070008000369c4b260418")
CLICK_ID = UUID("01a2004f81c07000a000369c4b260419")
NOW = datetime(2026, 11, 22, 12, 30, 5, tzinfo=UTC)
OFFER = Offer(
    id=17,
    advertiser_id=1,
    name="Déco & Co",
    ref="o-ref",
    url="https://x.example/",
    goals=(Goal(id=3, name="lead"),),
    creatives=(Creative(id=8, name="banner"),),
)
CATALOG = Catalog.empty().changed(
    5,
    [
        ("offers", "17", encode_item(OFFER)),
        ("partners", "2", encode_item(Partner(id=2, name="Deal Blog", ref="p-ref"))),
        ("advertisers", "1", encode_item(Advertiser(id=1, name="A", ref="a-ref"))),
    ],
)
CONVERSION: dict[str, Any] = {
    "conversion_id": CONVERSION_ID, "click_id": CLICK_ID, "transaction_id": "as sent", "advertiser_id": 1,
    "landing_page_id": 4, "creative_id": 8, "converted_at": NOW, "ip": "198.51.100.7", "country": "DE",
    "conversion_unique_id": "order-7", "promo_code": "", "extras": {"adv_unique1": "u1", "customer_id": "c9"},
    **{f"adv_sub{number}": f"adv{number}" for number in range(1, 6)},
    "amount": Decimal(999), "status": "reversed",
}  # fmt: skip
CLICK: dict[str, Any] = {
    "ip": "203.0.113.77", "country": "", "region": "BE", "city": "Köln", "user_agent": "Mozilla/5.0 (X)",
    "device_type": "mobile", "device_brand": "Acme", "os": "Android", "browser": "Chrome", "language": "de",
    "source": "a=b&c", "aff_click_id": "x/y?z#1", "contact_id": "", "cost": Decimal("0.000000"),
    "extras": {"google_aid": "g-1", "colour": "röd ö"},
    **{f"aff_sub{number}": f"s{number}" for number in range(1, 6)},
    **{f"utm_{name}": f"u-{name}" for name in ("source", "medium", "campaign", "content", "term")},
}  # fmt: skip


def due(url: str, **fields: Any) -> Due:
    """A row to be sent."""
    values: dict[str, Any] = {
        "outbox_id": 12, "conversion_id": CONVERSION_ID, "event": "decided", "status": "approved", "aff_id": 2,
        "offer_id": 17, "goal_id": 0, "amount": Decimal("49.900000"), "payout": Decimal("5.000000"),
        "revenue": Decimal("7.125000"), "currency": "EUR", "method": "GET", "url": url, "host": "p.example",
        "created_at": NOW, "attempts": 1,
    }  # fmt: skip
    return Due(**{**values, **fields})


def expand(template: str, *, conversion: dict[str, Any] = CONVERSION, click: dict[str, Any] = CLICK, **fields: Any) -> str:
    """The query that the template becomes."""
    row = due(f"https://p.example/?{template}", **fields)
    return compose(row, Facts(row, conversion, click, CATALOG)).url.partition("?")[2]


@pytest.mark.parametrize(
    ("macro", "value"),
    {
        "conversion_id": CONVERSION_ID.hex, "transaction_id": CLICK_ID.hex, "status": "approved",
        "offer_id": "17", "offer_name": "D%C3%A9co%20%26%20Co", "offer_ref": "o-ref", "goal_id": "0", "goal_name": "",
        "aff_id": "2", "affiliate_id": "2", "affiliate_name": "Deal%20Blog", "aff_ref": "p-ref",
        "advertiser_id": "1", "advertiser_ref": "a-ref", "url_id": "4", "offer_file_id": "8", "file_name": "banner",
        "payout": "5.00", "revenue": "7.125", "amount": "49.90", "sale_amount": "49.90", "currency": "EUR",
        "source": "a%3Db%26c", "aff_click_id": "x%2Fy%3Fz%231", "aff_sub": "s1", "aff_sub5": "s5",
        "adv_sub": "adv1", "adv_sub3": "adv3", "adv_unique1": "u1", "customer_id": "c9", "conversion_unique_id": "order-7",
        "promo_code": "", "ip": "198.51.100.7", "session_ip": "203.0.113.77", "country_code": "DE", "region_code": "BE",
        "city": "K%C3%B6ln", "user_agent": "Mozilla%2F5.0%20%28X%29", "device_os": "Android", "device_brand": "Acme",
        "google_aid": "g-1", "google_aid_sha1": sha1(b"g-1").hexdigest(), "ios_ifa_sha1": "", "utm_term": "u-term", "cost": "", "contact_id": "", "nonsense": "",
        "date": "2026-11-22", "time": "12%3A30%3A05", "datetime": "2026-11-22%2012%3A30%3A05",
        "params": "google_aid=g-1&colour=r%C3%B6d%20%C3%B6",
    }.items(),
)  # fmt: skip
def test_each_macro_has_its_value_encoded_for_its_place(macro: str, value: str) -> None:
    """Nothing that a value holds can end it, or begin another parameter."""
    assert expand(f"a={{{macro}}}&z=1") == f"a={value}&z=1"


def test_the_device_is_told_down_to_its_model() -> None:
    """What has no column is read from the user agent once more; without one it is nothing."""
    iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Version/17.4 Mobile/15E148 Safari/604.1"
    template = "{device_model}-{device_os_version}"
    assert expand(template, click={**CLICK, "user_agent": iphone}) == "iPhone-17.4"
    assert expand(template, click={**CLICK, "user_agent": ""}) == expand(template, click={}) == "-"


def test_params_hold_nothing_that_nobody_sent() -> None:
    """Our own notes on a click are for its story: neither the dialect nor a rule is a partner's business."""
    notes = {"dialect": "everflow", "rule": "2", "rule_reason": "not in France", "requested_offer_id": "20"}
    assert expand("{params}", click={**CLICK, "extras": {**notes, "gclid": "g"}}) == "gclid=g"


def test_a_goal_is_told_by_id_and_name() -> None:
    """The base conversion's is 0, without a name."""
    assert expand("{goal_id}-{goal_name}", goal_id=3) == "3-lead"


def test_money_is_what_it_was_when_it_was_told() -> None:
    """Later changes of the conversion's row are told by rows of their own."""
    assert expand("{status},{amount}", status="pending") == "pending,49.90"
    assert expand("{payout}", payout=Decimal(0)) == "0.00"
    assert expand("{payout}", payout=Decimal("123456789012.000001")) == "123456789012.000001"


def test_a_conversion_without_a_stored_click_is_told_all_the_same() -> None:
    """What only the click knew is empty; the id is the one that was sent."""
    alone = {**CONVERSION, "click_id": None}
    told = expand("a={transaction_id}&b={aff_sub}&c={session_ip}{params}{city}", conversion=alone, click={})
    assert told == "a=as%20sent&b=&c="


def test_a_post_carries_an_event_without_what_we_earn() -> None:
    """Standard Webhooks' form: type, timestamp, data; money as text, empty values left out."""
    row = due("https://p.example/hook", method="POST", goal_id=3)
    message = compose(row, Facts(row, CONVERSION, CLICK, CATALOG))
    assert message.body == (
        b'{"type":"conversion.approved","timestamp":"2026-11-22T12:30:05.000Z","data":{"conversion_id":"'
        + CONVERSION_ID.hex.encode() + b'","transaction_id":"' + CLICK_ID.hex.encode()
        + b'","status":"approved","offer_id":"17","goal_id":"3","goal_name":"lead","aff_id":"2","amount":"49.90",'
        b'"payout":"5.00","currency":"EUR","datetime":"2026-11-22 12:30:05","adv_sub1":"adv1","aff_click_id":"x/y?z#1",'
        b'"source":"a=b&c","aff_sub1":"s1","aff_sub2":"s2","aff_sub3":"s3","aff_sub4":"s4","aff_sub5":"s5"}}'
    )  # fmt: skip
    assert b"7.125" not in message.body


def test_the_message_id_is_the_rows_own() -> None:
    """The same for every attempt, without a dot, which the signature joins with."""
    first, later = due("https://p.example/"), due("https://p.example/", attempts=7)
    ids = {compose(one, Facts(one, CONVERSION, CLICK, CATALOG)).message_id for one in (first, later)}
    assert ids == {f"{CONVERSION_ID.hex}-12"}


@given(
    value=st.text(max_size=60),
    name=st.sampled_from(["aff_sub1", "aff_click_id", "source", "user_agent", "city"]),
    extra=st.dictionaries(st.text(min_size=1, max_size=10), st.text(max_size=20), max_size=3),
)
def test_no_value_leaves_its_place(value: str, name: str, extra: dict[str, str]) -> None:
    """Whatever a click holds: the host stays, nothing ends the parameter, and all is printable ASCII."""
    row = due(f"https://p.example/pb/{{{name}}}?a={{{name}}}&b={{params}}&z=1")
    url = compose(row, Facts(row, CONVERSION, {**CLICK, name: value, "extras": extra}, CATALOG)).url
    assert url.isascii()
    assert url.isprintable()
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "p.example", "")
    assert parts.path.count("/") == 2
    assert parse_qsl(parts.query, keep_blank_values=True)[0] == ("a", value.encode("utf-8", "replace").decode())
    assert parts.query.endswith("&z=1")
