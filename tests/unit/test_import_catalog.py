"""Other trackers' exports as a catalog: what is carried over, what is said of the rest, and that the result applies."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import UserError
from edge.imports import everflow, everflow_tables, tune, tune_tables
from edge.imports.draft import Draft, money
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Caps, Offer
from edge.tracking.catalog_file import Document, read_catalog

FIXTURES = Path(__file__).parents[1] / "fixtures" / "imports"
TUNE = ("tune_offers.json", "tune_affiliates.json", "tune_advertisers.json", "tune_terms.json")
EVERFLOW = ("everflow_offers.json", "everflow_partners.json", "everflow_custom.json")


def read_tune(*names: str) -> str:
    tables, _ = tune_tables.read_files([FIXTURES / name for name in names])
    return tune.build(tables, "USD").finish()


def read_everflow(*names: str) -> str:
    tables, _ = everflow_tables.read_files([FIXTURES / name for name in names])
    return everflow.build(tables, "USD").finish()


def document(text: str) -> Document:
    """The file as `apply` reads it: any fault raises."""
    return read_catalog(text, "catalog.toml", Catalog.empty())


def terms(part: Any) -> tuple[Any, ...]:
    names = ("payout_type", "payout", "payout_percent", "revenue_type", "revenue", "revenue_percent")
    return tuple(None if (value := getattr(part, name)) is None else str(value) for name in names)


@pytest.fixture(scope="module")
def tune_text() -> str:
    """TUNE's API answers."""
    return read_tune(*TUNE)


@pytest.fixture(scope="module")
def tune_offer(tune_text: str) -> Offer:
    """The offer that has everything."""
    return document(tune_text).offers["17"]


def test_tunes_advertisers_and_partners_keep_ids_tokens_and_status(tune_text: str) -> None:
    """The security token as it is, so that no advertiser has to change anything; who is not active is blocked."""
    read = document(tune_text)
    assert (read.advertisers["5"].name, read.advertisers["5"].security_token) == ("Outletforce", "a1b2c3d4")
    assert {key: (one.name, one.ref, one.status) for key, one in read.partners.items()} == {
        "2": ("Deal Blog", "DB", "active"),
        "3": ("Coupon Corner", "", "blocked"),
    }
    assert read.partners["2"].postback_url == "https://dealblog.example/pb?cid={aff_sub2}&amount={payout}"


def test_tunes_offer_keeps_its_terms_and_tracking(tune_offer: Offer) -> None:
    """Payout, revenue (`max_payout`), windows, approval, 301, server postbacks only, caps, redirect."""
    assert terms(tune_offer) == ("cpa_flat", "5.00", "0", "cpa_both", "7.50", "1.50")
    assert (tune_offer.advertiser_id, tune_offer.ref, tune_offer.currency) == (5, "OF-17", "USD")
    assert "clickid={transaction_id}&p={affiliate_id}&s={aff_sub}" in tune_offer.url
    assert (tune_offer.click_window_s, tune_offer.impression_window_s) == (720 * 3600, 24 * 3600)
    assert (tune_offer.approval, tune_offer.redirect, tune_offer.pixels) == ("manual", "301", False)
    assert (tune_offer.duplicates, tune_offer.redirect_offer_id, tune_offer.status) == ("reject", 18, "active")
    assert tune_offer.expires_at is not None
    assert tune_offer.expires_at.isoformat() == "2030-12-31T23:59:59+00:00"
    assert tune_offer.allowed_domains == ("shop.outletforce.example", "www.outletforce.example")
    caps = tune_offer.caps
    assert (caps.daily_conversions, caps.total_conversions, str(caps.monthly_payout)) == (100, 10000, "5000.00")


def test_tunes_goals_pages_files_and_partner_terms_come_along(tune_offer: Offer) -> None:
    """Two goals of one name are told apart; pages are reached by `url_id` alone, as they were."""
    assert [(goal.id, goal.name, goal.duplicates) for goal in tune_offer.goals] == [(3, "lead", "new"), (4, "lead (4)", None)]
    assert terms(tune_offer.goals[0]) == ("cpa_flat", "1.00", None, "cpa_flat", "1.50", None)
    assert [(page.id, page.name, page.weight) for page in tune_offer.landing_pages] == [(31, "Short page", 0)]
    assert [(file.id, file.name) for file in tune_offer.creatives] == [(8, "Banner 728x90")]
    overrides = {(one.aff_id, one.goal_id): one for one in tune_offer.overrides}
    assert terms(overrides[2, 0]) == (None, "6.00", None, None, "8.00", "2.00")
    assert terms(overrides[2, 3]) == (None, "1.20", None, None, "1.50", "1.50")
    assert terms(overrides[2, 4]) == (None, "2.00", None, None, "7.50", "1.50")
    assert overrides[3, 0].caps.daily_conversions == 10
    assert (2, 0) in overrides
    assert (44, 0) not in overrides


def test_tunes_whitelist_becomes_the_advertisers_where_all_its_offers_have_one(tune_text: str) -> None:
    """Else an offer without a list would be closed by another's."""
    assert document(tune_text).advertisers["5"].allowed_ips == ("198.51.100.1-20", "203.0.113.0/24")


def test_what_tune_has_and_we_do_not_is_said(tune_text: str) -> None:
    """Above the item that it is about; secrets stay hidden; nothing is left out without a word."""
    for note in (
        "# in TUNE partners must be approved for it",
        "# not carried over: converted_offer_id = 18",
        "# not carried over: description = <p>Lights & more</p>",
        "# not carried over: tmp_token = …",
        "# not carried over: city = Ottawa",
        "# not carried over: goal 5 old, deleted in TUNE",
        "# not carried over: overrides aff_id = 44, payout = 9.00",
        "# not carried over: redirect_offer_id = 999",
        "# not carried over: pixel of type image for offer 17",
        "# nobody here knows the macro {custom_thing}",
        "# LEFT OUT: offers[19] Old \"thing\": url: 'https://{source}.evil.example/' has a macro in its host",
        "# LEFT OUT: offers[21] Gone: it is deleted in TUNE",
        "# not in the export: made up, because offers name it",
    ):
        assert note in tune_text
    assert "zzz" not in tune_text


def test_an_offer_that_waits_or_pays_by_the_click_is_carried_over(tune_text: str) -> None:
    """Pending: paused; percentages; several conversions a click."""
    offers = document(tune_text).offers
    assert sorted(offers) == ["17", "18", "20"]
    assert (offers["20"].status, offers["20"].payout_type, str(offers["20"].payout)) == ("paused", "cpc", "0.05")
    assert (offers["18"].status, offers["18"].currency, offers["18"].duplicates) == ("paused", "EUR", "new")
    assert (str(offers["18"].payout_percent), offers["18"].pixels, offers["18"].caps) == ("8.00", True, Caps())


def test_tunes_csv_gives_the_same_as_its_api() -> None:
    """By field names, with the model in front or not; currency signs and thousands are read."""
    read = document(read_tune("tune_offers.csv", "tune_advertisers.csv", "tune_affiliates.csv"))
    assert terms(read.offers["17"])[1::3] == ("5.00", "1007.50")
    assert [partner.name for partner in read.partners.values()] == ["Deal Blog", "Coupon, Corner"]
    assert read.advertisers["5"].name == "Outletforce"


def test_everflows_offer_keeps_its_terms_and_its_macros_become_ours() -> None:
    """The default entry is the offer's, the others are goals; custom payouts are overrides; first touch stays first."""
    read = document(read_everflow(*EVERFLOW))
    offer = read.offers["17"]
    assert offer.url.endswith("?tid={transaction_id}&p={affiliate_id}&s={aff_sub1}&src={source}&o={order_id}")
    assert terms(offer) == ("cpa_flat", "5.00", "0", "cpa_both", "7.50", "1.50")
    assert [(goal.id, goal.name, goal.duplicates) for goal in offer.goals] == [(102, "lead", "new")]
    assert terms(offer.goals[0]) == ("cpa_percentage", "0.00", "10.00", "cpa_flat", "1.50", "0.00")
    assert [(one.aff_id, one.goal_id, str(one.payout), one.revenue) for one in offer.overrides] == [
        (2, 0, "6.00", None),
        (2, 102, "0.00", None),
        (3, 0, "6.00", None),
        (3, 102, "0.00", None),
    ]
    assert terms(offer.overrides[1]) == ("cpa_percentage", "0.00", "10.00", None, None, None)
    assert (offer.attribution, offer.approval, offer.redirect, offer.pixels) == (
        "first", "manual", "single_meta_refresh", False,
    )  # fmt: skip
    assert (offer.click_window_s, offer.redirect_offer_id, offer.caps.daily_clicks) == (720 * 3600, 18, 20000)
    assert offer.landing_pages[0].url == "https://shop.outletforce.example/a?tid={transaction_id}&s={aff_sub1}"
    assert read.advertisers["5"].security_token == "s3cr3t"
    assert [(one.name, one.status) for one in read.partners.values()] == [
        ("Deal Blog", "active"), ("Coupon Corner", "blocked"), ("Late Partner", "active"),
    ]  # fmt: skip
    assert read.partners["2"].postback_url == "https://dealblog.example/pb?cid={aff_sub2}&amount={payout}"


def test_what_everflow_has_and_we_do_not_is_said() -> None:
    """A share of the revenue, notes, encoded links, payouts for everybody."""
    text = read_everflow(*EVERFLOW)
    for note in (
        "# not carried over, nothing is paid: payout_type = prv, 0, 70.00 %",
        "# not carried over: internal_notes = call Bob",
        "# not carried over: encoded_value = 2CTPL",
        "# not carried over: For all for all partners: payout_type = cpa_percentage, payout = 0.00, payout_percent = 12.00",
        "# Better is limited in time in Everflow (2030-01-01)",
        "# nobody here knows the macro {order_id}",
        "# LEFT OUT: offers[19] Gone: it is deleted in Everflow",
    ):
        assert note in text
    assert document(text).offers["18"].payout == 0


def test_everflows_csv_is_read_by_its_headings() -> None:
    """Ids in brackets behind a name, capitals, currency signs; an advertiser that is not there is made up."""
    read = document(read_everflow("everflow_offers.csv"))
    assert terms(read.offers["17"])[::3] == ("cpa_flat", "cpa_flat")
    assert (str(read.offers["17"].payout), read.offers["17"].status) == ("5.00", "active")
    assert read.advertisers["5"].name == "Advertiser 5"


@pytest.mark.parametrize(("read", "names"), [(read_tune, TUNE), (read_everflow, EVERFLOW)])
def test_the_same_export_gives_the_same_file_in_any_order(read: Any, names: tuple[str, ...]) -> None:
    """So that two exports can be compared."""
    assert read(*names) == read(*names)
    assert document(read(*names)) == document(read(*reversed(names)))


@pytest.mark.parametrize(
    ("reader", "content", "told"),
    [
        (tune_tables, '{"response": {"status": -1, "errorMessage": "Invalid token"}}', "answered with an error: Invalid token"),
        (tune_tables, "{}", "holds no offers"),
        (tune_tables, "[[[[1]]]]", "holds no offers"),
        (tune_tables, "company,status\nX,active\n", "holds no offers"),
        (tune_tables, '{"a": ', "is no JSON"),
        (tune_tables, "[" * 100_000, "is no JSON"),
        (everflow_tables, '{"Error": "Unauthorized"}', "answered with an error: Unauthorized"),
        (everflow_tables, '{"offers": []}', "holds no offers"),
        (everflow_tables, "", "is empty"),
    ],
)
def test_a_file_in_which_nothing_is_recognised_is_refused(tmp_path: Path, reader: Any, content: str, told: str) -> None:
    """One line with the file's name; an error that the vendor's API answered is passed on."""
    path = tmp_path / "export.json"
    path.write_text(content)
    with pytest.raises(UserError, match=told) as refused:
        reader.read_files([path])
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("reader", "answer"),
    [
        (tune_tables, {"response": {"status": 1, "data": {"page": 1, "pageCount": 3, "data": {"5": {"Advertiser": {"id": "5"}}}}}}),
        (
            everflow_tables,
            {
                "advertisers": [{"network_advertiser_id": 5, "name": "A", "account_status": "active"}],
                "paging": {"page": 1, "page_size": 1, "total_count": 3},
            },
        ),
    ],
)
def test_the_first_page_of_several_is_said_to_be_one(tmp_path: Path, reader: Any, answer: Any) -> None:
    """An export of which the rest is missing must not look whole."""
    path = tmp_path / "page.json"
    path.write_text(json.dumps(answer))
    assert reader.read_files([path])[1] == ["page.json is page 1 of 3: give all pages"]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5.00000", "5.00"), ("5", "5.00"), ("0.005", "0.005"), (".5", "0.50"), ("$1,234.5", "1234.50"), ("12 %", "12.00"),
        ("7.50 USD", "7.50"), ("0.00", "0.00"), ("", ""), ("-5", ""), ("1,50", ""), ("NaN", ""), ("1e9", ""), ("0.0000001", "0.00"),
    ],
)  # fmt: skip
def test_an_amount_is_read_exactly_or_not_at_all(text: str, amount: str) -> None:
    """Thousands have their commas; a decimal comma is not guessed at."""
    assert money(text) == amount


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "name", "Offer", "Goal", "OfferUrl", "offer_url", "offer_id", "payout_type", "default_payout", "status",
             "advertiser_id", "Advertiser", "company", "Affiliate", "redirect_offer_id", "session_hours", "currency",
             "network_offer_id", "destination_url", "network_advertiser_id", "relationship", "entries", "is_default",
             "network_offer_payout_revenue_id", "payout_amount", "payout_percentage", "network_affiliate_ids"]
        ),
        inner,
        max_size=8,
    ),
    max_leaves=25,
)  # fmt: skip


@given(hostile)
def test_whatever_an_export_holds_the_file_applies_or_is_refused(tmp_path_factory: Any, value: Any) -> None:
    """Fields of any type and value: no traceback, and no catalog that `apply` would not take."""
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    path.write_text(json.dumps([value]))
    for reader, vendor in ((tune_tables, tune), (everflow_tables, everflow)):
        try:
            tables, _ = reader.read_files([path])
        except UserError:
            continue
        document(vendor.build(tables, "USD").finish())


def test_a_draft_goes_round_until_nothing_is_wrong() -> None:
    """Taking one thing out may leave another without what it names."""
    draft = Draft("Test.")
    for number, target in ((1, 2), (2, 3), (3, 1), (4, 9)):
        offer = draft.item("offers", number, f"Offer {number}")
        offer.fields |= {"url": "https://shop.example/", "advertiser_id": 5, "redirect_offer_id": target}
    draft.item("offers", 9, "Bad").fields |= {"url": "ftp://x/", "advertiser_id": 5}
    read = document(draft.finish())
    assert sorted(read.offers) == ["1", "2", "3", "4"]
    assert "goes round in a circle" in draft.finish()
