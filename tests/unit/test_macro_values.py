"""edge/tracking/macro_values.py: what stands for each macro in a click's Location."""

import hashlib
import re

import pytest

from edge.tracking.click import handle_click
from edge.tracking.dialects import dispatch
from edge.tracking.macros import _NAMES
from edge.tracking.request import Handled
from edge.tracking.surroundings import Device, Place
from tests.wire.edge_state import SECRET, build_state, request_of

CATALOG = """
[[advertisers]]
id = 1
name = "Outletforce"
ref = "adv-ref"
security_token = "s3cret-token"

[[partners]]
id = 2
name = "Deal Blog & Söhne"
ref = "CRM/7"

[[offers]]
id = 17
advertiser_id = 1
name = "50% off"
ref = "off-ref"
url = "https://shop.example.com/?v={MACRO}"
payout = "5.00"
revenue = "7.5"
currency = "EUR"
overrides = [{ aff_id = 2, payout = "6.000001" }]
landing_pages = [{ id = 4, url = "https://shop.example.com/?v={MACRO}" }]
creatives = [{ id = 5, name = "Banner 1" }]
"""
HEADERS = {"User-Agent": "Mozilla/5.0 (X11)"}


def handled(macro: str, query: str) -> Handled:
    state = build_state(CATALOG.replace("MACRO", macro))
    return handle_click(state, request_of(f"offer_id=17&aff_id=2&{query}", HEADERS), "")


def value(macro: str, query: str = "") -> str:
    return handled(macro, query).answer.location.removeprefix("https://shop.example.com/?v=")


@pytest.mark.parametrize(
    ("macro", "query", "expected"),
    [
        ("offer_id", "", "17"),
        ("offer_name", "", "50%25%20off"),
        ("offer_ref", "", "off-ref"),
        ("advertiser_id", "", "1"),
        ("advertiser_ref", "", "adv-ref"),
        ("aff_id", "", "2"),
        ("affiliate_id", "", "2"),
        ("affiliate_name", "", "Deal%20Blog%20%26%20S%C3%B6hne"),
        ("affiliate_ref", "", "CRM%2F7"),
        ("payout", "", "6.000001"),
        ("revenue", "", "7.5"),
        ("currency", "", "EUR"),
        ("offer_url_id", "url_id=4", "4"),
        ("url_id", "url_id=99", ""),
        ("file_id", "file_id=5", "5"),
        ("offer_file_id", "file_id=5", "5"),
        ("file_name", "file_id=5", "Banner%201"),
        ("file_name", "file_id=6", ""),
        ("ip", "", "203.0.113.9"),
        ("session_ip", "", "203.0.113.9"),
        ("user_agent", "", "Mozilla%2F5.0%20%28X11%29"),
        ("date", "", "2027-01-15"),
        ("time", "", "08%3A00%3A00"),
        ("datetime", "", "2027-01-15%2008%3A00%3A00"),
        ("source", "source=a%26b", "a%26b"),
        ("aff_sub", "aff_sub=a+b", "a%20b"),
        ("aff_sub1", "aff_sub=a%2Fb", "a%2Fb"),
        ("aff_sub5", "aff_sub5=%C3%BC", "%C3%BC"),
        ("aff_click_id", "aff_click_id=%7B%22a%22%7D", "%7B%22a%22%7D"),
        ("aff_unique5", "aff_unique5=u", "u"),
        ("utm_source", "utm_source=news", "news"),
        ("contact_id", "contact_id=c%231", "c%231"),
        ("unid", "unid=%25", "%25"),
        ("aff_sub2", "aff_sub2=x%0D%0Ay", "xy"),
        ("aff_sub2", "", ""),
        ("clickid", "clickid=x", ""),
        ("security_token", "security_token=x", ""),
    ],
)
def test_a_macro_stands_for_its_value_percent_encoded(macro: str, query: str, expected: str) -> None:
    """The catalog's and the click's own values; an unknown macro and a missing value are nothing."""
    assert value(macro, query) == expected


class Somewhere:
    """One device and place for all."""

    def device(self, user_agent: str) -> Device:
        """A phone."""
        return Device("mobile", "Apple", "iOS", "Mobile Safari", device_model="iPhone", os_version="17.4")

    def place(self, ip: str) -> Place:
        """In Québec."""
        return Place("CA", "QC", "Québec")


@pytest.mark.parametrize(
    ("macro", "expected", "unknown"),
    [
        ("country_code", "CA", ""),
        ("country", "CA", ""),
        ("region_code", "QC", ""),
        ("region", "QC", ""),
        ("city", "Qu%C3%A9bec", ""),
        ("device_type", "mobile", ""),
        ("device_brand", "Apple", ""),
        ("device_model", "iPhone", ""),
        ("device_os", "iOS", ""),
        ("os", "iOS", ""),
        ("device_os_version", "17.4", ""),
        ("browser", "Mobile%20Safari", ""),
        ("language", "fr-CA", "fr-CA"),
    ],
)
def test_device_and_place_are_told_as_far_as_they_are_known(macro: str, expected: str, unknown: str) -> None:
    """By our own look-up, never by what the link says."""
    state = build_state(CATALOG.replace("MACRO", macro))
    request = request_of(f"offer_id=17&aff_id=2&{macro}=forged", {"Accept-Language": "fr-CA,fr;q=0.9"})
    told = [handle_click(state, request, "").answer.location]
    state.enrichment = Somewhere()
    told.append(handle_click(state, request, "").answer.location)
    assert [location.partition("?v=")[2] for location in told] == [unknown, expected]


@pytest.mark.parametrize(
    "name",
    ["offer_name", "offer_ref", "advertiser_id", "advertiser_ref", "affiliate_name", "affiliate_ref", "file_name",
     "payout", "revenue", "currency", "ip", "session_ip", "user_agent", "date", "time", "transaction_id"],
)  # fmt: skip
def test_a_visitor_cannot_say_what_is_ours_to_say(name: str) -> None:
    """A parameter named like a macro of ours does not replace its value."""
    assert "forged" not in value(name, f"{name}=forged")


def test_the_transaction_id_is_the_clicks() -> None:
    """32 lower-case hex digits."""
    assert re.fullmatch(r"[0-9a-f]{32}", value("transaction_id"))


def test_device_ids_are_hashed_where_that_is_asked_for() -> None:
    """SHA-1 in lower-case hex; nothing for none."""
    expected = hashlib.sha1(b"AEBE52E7-03EE").hexdigest()
    assert value("google_aid_sha1", "google_aid=AEBE52E7-03EE") == expected
    assert value("ios_ifa_sha1", "ios_ifa=AEBE52E7-03EE") == expected
    assert value("ios_ifa_sha1") == ""


def test_a_random_number_is_another_each_time() -> None:
    """`{ran}` beats caches."""
    assert len({value("ran") for _ in range(20)}) > 15


def test_params_are_all_that_has_no_macro_of_its_own() -> None:
    """A query string again: its separators stay, the values are encoded."""
    assert value("params", "gclid=a%26b&x+y=%C3%BC&aff_sub=s") == "gclid=a%26b&x%20y=%C3%BC"
    assert value("params") == ""


def test_params_do_not_tell_the_dialect() -> None:
    """It is our own note on the click, and no parameter that anybody sent."""
    state = build_state(CATALOG.replace("MACRO", "params"))
    answer = dispatch(state, request_of("gclid=g", path="/2/17/")).answer
    assert answer.location.endswith("?v=gclid=g")


def test_no_macro_fails_on_a_bare_click_or_tells_a_secret() -> None:
    """Every macro that exists, all at once."""
    everything = "}{".join(sorted(_NAMES))
    location = handled(everything, "").answer.location
    assert location.isascii()
    assert location.isprintable()
    assert "s3cret-token" not in location
    assert SECRET not in location
