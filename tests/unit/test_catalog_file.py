"""Catalog files: what is read, and what is said about what cannot be."""

import contextlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_diff import find_warnings
from edge.tracking.catalog_document import TABLES, Offer, encode_item
from edge.tracking.catalog_file import CatalogFaults
from tests.unit.catalog_texts import ADVERTISER, OFFER, PARTNER, faults_in, read

EXAMPLE = Path(__file__).parents[2] / "examples" / "catalog.toml"
FIELD_NAMES = sorted({field.encode_name for struct in TABLES.values() for field in msgspec.structs.fields(struct)})


def test_the_example_is_a_good_catalog() -> None:
    """What `make run` applies has no faults and asks for nothing that is not enforced."""
    document = read(EXAMPLE.read_text())
    assert set(document.offers) == {"17", "18", "19"}
    assert set(document.partners) == {"2", "3"}
    assert document.aliases["SL2"].params == {"offer_id": "17", "aff_id": "2"}
    assert document.advertisers["1"].security_token == ""
    assert find_warnings(document) == []


def test_every_field_of_the_contract_is_read() -> None:
    """A whole offer comes out as it went in, durations in seconds, money exact."""
    document = read(
        OFFER
        + PARTNER
        + """
[[offers]]
id = 18
advertiser_id = 1
name = "Everything"
url = "https://shop.example.com/{source}?c={transaction_id}"
preview_url = ""
status = "paused"
expires_at = 2027-01-01T00:00:00+01:00
payout_type = "cpa_both"
payout = 5.10
payout_percent = 2
revenue_type = "cpm"
revenue = "7.123456"
revenue_percent = "0.5"
currency = "EUR"
advertiser_sets_amounts = true
approval = "manual"
click_window = "12h"
impression_window = 0
min_seconds_to_convert = 3
attribution = "first"
duplicates = "increment"
allowed_domains = ["Shop.Example.com"]
pixels = false
tracking = "partner_id"
time_zone = "Europe/Berlin"
redirect = 302
tiers = [{ from_conversions = 100, payout = "6.00" }]
promo_codes = [{ code = "XMAS", aff_id = 2 }]
redirect_offer_id = 17
caps = { daily_conversions = 100, monthly_payout = "5000.00" }
cap_clicks = "allow"
cap_conversions = "pending"
goals = [{ id = 1, name = "lead", payout = "1.00", duplicates = "new" }]
overrides = [{ aff_id = 2, payout = "6.00", caps = { total_clicks = 5 } }]
landing_pages = [{ id = 1, url = "https://shop.example.com/a", weight = 70 }]
creatives = [{ id = 5, name = "banner" }]
rules = [{ when = { country = ["us"], weekday = ["mon"], hour = [0, 23] }, then = { landing_page_id = 1 } }]
"""
    )
    offer = document.offers["18"]
    assert offer.expires_at == datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert (offer.payout, offer.payout_percent, offer.revenue) == (Decimal("5.10"), Decimal(2), Decimal("7.123456"))
    assert (offer.click_window_s, offer.impression_window_s) == (12 * 3600, 0)
    assert offer.allowed_domains == ("shop.example.com",)
    assert offer.redirect == "302"
    assert offer.caps.monthly_payout == Decimal("5000.00")
    assert offer.rules[0].when.country == ("US",)
    assert find_warnings(document) == []


def test_all_faults_are_told_at_once_each_with_its_place() -> None:
    """File, table, id and field of every fault, what is wrong and what is allowed."""
    faults = faults_in(
        """
[[advertisers]]
id = 1
name = "A"
security_token = "line\\nbreak"
[[partners]]
id = 2
[[offers]]
id = 17
advertiser_id = 9
name = "tab\\t"
url = "https://{source}.example.com/"
statu = "active"
status = "on"
payout = "5,00"
click_window = "1 week"
[[offers.goals]]
id = 1
name = "lead"
payout = -1
[[offer]]
id = 3
"""
    )
    assert set(faults) == {
        "offer",
        "advertisers[1].security_token",
        "partners[2].name",
        "offers[17].name",
        "offers[17].url",
        "offers[17].statu",
        "offers[17].status",
        "offers[17].payout",
        "offers[17].click_window",
        "offers[17].goals[1].payout",
    }
    assert faults["offers[17].status"] == "'on' is not allowed; allowed: active | paused | expired"
    assert faults["offers[17].statu"].endswith("did you mean status?")
    assert faults["offer"].startswith("is no table of a catalog; did you mean offers?")
    assert "macro in its host" in faults["offers[17].url"]
    assert "line" not in faults["advertisers[1].security_token"].split(";")[0]


def test_the_text_names_the_file_on_every_line() -> None:
    """What the user sees begins with the file's name, fault by fault."""
    with pytest.raises(CatalogFaults) as caught:
        read("[[partners]]\nid = 0\nname = 3\n")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("catalog.toml: partners[0].") for line in lines)


def test_a_syntax_error_is_told_with_its_line() -> None:
    """TOML that cannot be parsed: the line and the parser's message."""
    faults = faults_in("[[offers]]\nid = \n")
    assert list(faults) == ["line 2, column 6"]
    assert faults["line 2, column 6"] == "Invalid value"


@pytest.mark.parametrize(
    "text", ["offers = 3", "[offers]\nid = 1", "offers = [1, 2]", "a" * 9, "x = " + "[" * 5000, "x = " + "9" * 5000]
)
def test_a_file_of_the_wrong_shape_is_refused(text: str) -> None:
    """No shape of TOML raises anything but faults."""
    assert faults_in(text)


@pytest.mark.parametrize(
    ("field", "value", "is_good"),
    [
        ("payout", '"0"', True),
        ("payout", '"999999999999.999999"', True),
        ("payout", '"1000000000000"', False),
        ("payout", '"1.0000001"', False),
        ("payout", '"1e3"', False),
        ("payout", "nan", False),
        ("payout", "true", False),
        ("payout", '"٣"', False),
        ("payout_percent", "1000", True),
        ("payout_percent", "1000.5", False),
        ("click_window", '"45s"', True),
        ("click_window", '"0"', True),
        ("click_window", "5", False),
        ("click_window", '"99999d"', False),
        ("currency", '"usd"', False),
        ("time_zone", '"Europe/Nowhere"', False),
        ("time_zone", '"../../etc/passwd"', False),
        ("expires_at", '"2026-12-31 23:00"', True),
        ("expires_at", '"31.12.2026"', False),
        ("expires_at", "2026-12-31", True),
        ("redirect_offer_id", "0", True),
        ("redirect_offer_id", "2147483648", False),
        ("pixels", '"yes"', False),
        ("allowed_domains", '["*.example.com"]', False),
        ("preview_url", '"javascript:alert(1)"', False),
        ("preview_url", '"https://user:pw@shop.example.com/"', False),
        ("preview_url", '"https://shop.example.com/a b"', False),
        ("goals", '[{ id = 1, name = "a" }, { id = 1, name = "b" }]', False),
        ("goals", '[{ id = 1, name = "a" }, { id = 2, name = "a" }]', False),
        ("rules", "[{ then = { } }]", False),
        ("rules", '[{ then = { reject = "geo", url = "https://a.example/" } }]', False),
        ("rules", "[{ then = { landing_page_id = 4 } }]", False),
        ("rules", '[{ when = { hour = [24] }, then = { reject = "x" } }]', False),
        ("rules", '[{ when = { device = ["Mobile"], language = ["pt-BR"] }, then = { reject = "x" } }]', True),
        ("rules", '[{ when = { device = ["phone"] }, then = { reject = "x" } }]', False),
        ("rules", '[{ when = { language = ["german"] }, then = { reject = "x" } }]', False),
        ("rules", '[{ when = { weekday = ["monday"] }, then = { reject = "x" } }]', False),
        ("rules", '[{ when = { region = ["US-CA"], source = ["a"], aff_sub5 = ["b"] }, then = { reject = "x" } }]', True),
        ("rules", '[{ when = { source = [""] }, then = { reject = "x" } }]', False),
        ("rules", '[{ when = { percentage = 100 }, then = { reject = "x" } }]', True),
        ("rules", '[{ when = { percentage = 0 }, then = { reject = "x" } }]', False),
        ("rules", '[{ when = { percentage = 101 }, then = { reject = "x" } }]', False),
        ("rules", "[{ then = { offer_id = 17 } }]", False),
        ("rules", "[{ then = { offer_id = 99 } }]", False),
        ("landing_pages", '[{ id = 1, url = "https://a.example/", weight = 0 }]', True),
        ("landing_pages", '[{ id = 1, url = "https://a.example/", weight = -1 }]', False),
        ("overrides", '[{ aff_id = 2, payout = "1" }]', True),
        ("overrides", '[{ aff_id = 3, payout = "1" }]', False),
        ("overrides", '[{ aff_id = 2, goal_id = 1, payout = "1" }]', False),
        ("promo_codes", '[{ code = "X", aff_id = 3 }]', False),
    ],
)
def test_a_field_takes_what_is_allowed_and_nothing_else(field: str, value: str, is_good: bool) -> None:
    """Limits of the contract, one value at a time; a fault names the field or something inside it."""
    text = PARTNER + OFFER + f"{field} = {value}\n"
    if is_good:
        assert read(text).offers["17"]
    else:
        assert all(where.startswith(f"offers[17].{field}") for where in faults_in(text))


@pytest.mark.parametrize("name", ["Müller\u00a0& Söhne", "Ka\u200cfé", "👩\u200d🌾"])
def test_names_may_be_in_any_language(name: str) -> None:
    """Joiners and no-break spaces are part of names; only control characters are not."""
    assert read(f'[[partners]]\nid = 2\nname = "{name}"\n').partners["2"].name == name


def as_toml(value: object) -> str:
    """A value as TOML writes it inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {as_toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)


ANYTHING = st.recursive(
    st.booleans() | st.integers() | st.floats(0, 1e300) | st.sampled_from(["", "0", "5.00", "1d", "click", "x\n", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELD_NAMES), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(TABLES)), st.lists(ANYTHING, max_size=3) | ANYTHING))
def test_whatever_a_file_says_it_is_read_or_has_faults(tables: dict[str, object]) -> None:
    """No value in any place raises anything else."""
    text = "".join(f"{name} = {as_toml(value)}\n" for name, value in tables.items())
    with contextlib.suppress(CatalogFaults):
        read(text)


def test_allowed_addresses_may_be_written_in_three_ways() -> None:
    """Address, range and CIDR are taken, anything else is a fault."""
    good = ADVERTISER + 'allowed_ips = ["192.0.2.1", "192.0.2.5-192.0.2.9", "2001:db8::/32"]\n'
    assert len(read(good).advertisers["1"].allowed_ips) == 3
    assert list(faults_in(ADVERTISER + 'allowed_ips = ["example.com"]\n')) == ["advertisers[1].allowed_ips"]


def test_an_item_of_a_later_release_can_be_read() -> None:
    """Stored bodies may have fields that this release does not know."""
    body = encode_item(read(OFFER).offers["17"])[:-1] + b',"brand_new":[1]}'
    offer = Catalog.empty().changed(1, [("offers", "17", body)]).offer(17)
    assert isinstance(offer, Offer)
