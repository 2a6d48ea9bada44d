"""edge/tracking/translation.py and what it is made of: names, statuses, aliases, amounts, tokens."""

from base64 import b64encode

import pytest

from edge.tracking.catalog import Catalog
from edge.tracking.item_amounts import total
from edge.tracking.minor_units import to_decimal
from edge.tracking.payouts import parse_amount
from edge.tracking.translation import MAX_COPY_CHARS, Translated, translate
from edge.tracking.vendors.row import WHOLE, Items, Row, Statuses
from tests.wire.edge_state import build_catalog, request_of

CATALOG = build_catalog()
ITEMS = Items("Price", "Quantity", ("Subtotal",), "Discount")


def speak(row: Row, query: str, headers: dict[str, str] | None = None, catalog: Catalog = CATALOG) -> Translated:
    return translate("vendor", row, request_of(query, headers), {}, catalog)


def params_of(row: Row, query: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    return speak(row, query, headers).request.params


def test_names_are_those_of_the_row_and_others_stay() -> None:
    """One of theirs may be two of ours; of two for one of ours the one further up in the table wins."""
    row = Row("/", "postback", names={"ect": "amount", "p": "revenue amount", "t": "adv_unique1"})
    assert params_of(row, "p=9&ect=120&x=y&adv_sub=z") == {
        "dialect": "vendor", "amount": "120", "revenue": "9", "x": "y", "adv_sub1": "z",
    }  # fmt: skip
    assert params_of(row, "p=9")["amount"] == "9"
    assert params_of(row, "dialect=tune&t=")["dialect"] == "vendor"


def test_the_vendors_name_beats_ours() -> None:
    """Who sends both means the vendor's."""
    row = Row("/", "postback", names={"cid": "transaction_id"})
    assert params_of(row, "transaction_id=a&cid=b")["transaction_id"] == "b"
    assert params_of(row, "transaction_id=a")["transaction_id"] == "a"


STATUSES = Statuses("st", {"sale": "approved", "lead": "pending"}, {"sale_status": "sale"}, ("ignore",))


@pytest.mark.parametrize(
    ("query", "status", "original", "is_ignored"),
    [
        ("st=sale", "approved", "sale", False),
        ("st=LEAD", "pending", "LEAD", False),
        ("st=other", None, "other", False),
        ("st=other&status=approved", None, "other", False),
        ("status=approved", None, None, False),
        ("", None, None, False),
        ("st=lead&sale_status=x,+Lead", "approved", "lead", False),
        ("st=sale&ignore=ping,sale", None, "sale", True),
        ("st=sale&ignore=", "approved", "sale", False),
    ],
)
def test_a_status_is_our_word_and_theirs_is_kept(
    query: str, status: str | None, original: str | None, is_ignored: bool
) -> None:
    """The sender's own lists come first; a word that nobody knows decides nothing."""
    translated = speak(Row("/", "postback", statuses=STATUSES), query)
    params = translated.request.params
    assert (params.get("status"), params.get("original_status")) == (status, original)
    assert translated.is_ignored is is_ignored


def test_our_status_passes_where_the_vendor_has_none() -> None:
    """What is to become of it is for the verdict."""
    assert params_of(Row("/", "postback"), "status=Anything")["status"] == "Anything"


def test_an_alias_gives_its_frozen_parameters_or_the_one_that_is_asked_for() -> None:
    """The first parameter of the row counts most; an alias taken for one parameter is not the click's alias."""
    row = Row("/", "click", names={"c": "offer_id", "a": "aff_id"}, aliases={"c": WHOLE, "a": "aff_id"})
    translated = speak(row, "c=SL2&a=3&aff_sub=mine")
    assert (translated.alias, translated.request.params) == (
        "SL2", {"dialect": "vendor", "offer_id": "17", "aff_id": "2", "aff_sub1": "frozen"},
    )  # fmt: skip
    translated = speak(row, "c=17&a=SL2")
    assert (translated.alias, translated.request.params) == (
        "", {"dialect": "vendor", "offer_id": "17", "aff_id": "2"},
    )  # fmt: skip
    assert speak(row, "c=17&a=SP1").request.params["aff_id"] == "SP1"


@pytest.mark.parametrize(
    ("authorization", "scheme", "token"),
    [
        ("Bearer dub_1", "bearer", "dub_1"),
        ("bearer  dub_1 ", "bearer", "dub_1"),
        ("Basic " + b64encode(b"sid:s:1").decode(), "basic", "s:1"),
        ("Basic " + b64encode(b"sid").decode(), "basic", None),
        ("Basic !!!", "basic", None),
        ("Basic " + b64encode(b"\xff:\xff").decode(), "basic", None),
        ("Bearer x", "basic", None),
        ("Bearer", "bearer", None),
        ("", "bearer", None),
    ],
)
def test_a_token_may_come_in_a_header(authorization: str, scheme: str, token: str | None) -> None:
    """Anything that is none is as if there were none."""
    row = Row("/", "postback", authorization=scheme)  # type: ignore[arg-type]
    assert params_of(row, "", {"Authorization": authorization}).get("security_token") == token


@pytest.mark.parametrize(
    ("amount", "currency", "decimal"),
    [
        ("4999", "usd", "49.99"),
        ("5", "USD", "0.05"),
        ("0", "USD", "0.00"),
        ("4999", "", "49.99"),
        ("1437", "jpy", "1437"),
        ("1437", "KWD", "1.437"),
        ("12345678901234567890", "EUR", "123456789012345678.90"),
        ("1e999", "USD", "1e999"),
        ("-5", "USD", "-5"),
        ("NaN", "USD", "NaN"),
        ("1,50", "USD", "1,50"),
        ("49.99", "USD", "49.99 in smallest units"),
        ("49.0", "JPY", "49.0 in smallest units"),
        ("٣", "USD", "٣"),
        ("", "USD", ""),
    ],
)
def test_cents_become_decimals_by_moving_the_point(amount: str, currency: str, decimal: str) -> None:
    """Exact for any length; what is no whole number stays, and so does its fault."""
    assert to_decimal(amount, currency) == decimal
    assert (parse_amount(decimal) is not None) == (amount.isascii() and amount.isdigit() and len(amount) < 18)


@pytest.mark.parametrize(
    ("sent", "amount"),
    [
        ({}, ""),
        ({"Discount": "5"}, ""),
        ({"Price1": "10", "Quantity1": "2", "Price2": "6.99", "Discount": "5"}, "21.99"),
        ({"Price1": "10"}, "10"),
        ({"Price1": "10", "Price3": "99"}, "10"),
        ({"Subtotal1": "7.50", "Price1": "1", "Price2": "2"}, "9.50"),
        ({"Price1": "0.333333", "Quantity1": "3"}, "0.999999"),
        ({"Price1": "999999999999", "Quantity1": "999999999999"}, "999999999998000000000001"),
        ({"Price1": "1e999"}, "1e999"),
        ({"Price1": "1", "Quantity1": "NaN"}, "NaN"),
        ({"Price1": "1", "Discount": "1,50"}, "1,50"),
        ({"Price1": "1", "Discount": "2"}, "-1"),
        ({f"Price{number}": "0.01" for number in range(1, 201)}, "1.00"),
    ],
)
def test_the_amount_of_an_order_is_the_exact_sum_of_its_items(sent: dict[str, str], amount: str) -> None:
    """Less the discount, at most 100 of them; what is no amount is passed on for the verdict to refuse."""
    assert total(sent, ITEMS) == amount


def test_a_sent_amount_beats_the_items() -> None:
    """Items are added up only for who leaves it to us; without both there is no amount."""
    row = Row("/", "postback", items=ITEMS)
    assert params_of(row, "amount=3&Price1=10")["amount"] == "3"
    assert params_of(row, "Price1=10")["amount"] == "10"
    assert "amount" not in params_of(row, "x=1")


def test_a_value_with_two_names_of_ours_is_not_kept_twice_at_any_length() -> None:
    """A body of one value would become an event too large to record, and its sender would be asked to try again for ever."""
    row = Row("/", "postback", names={"payout": "revenue amount"})
    params = params_of(row, "payout=" + "9" * 60_000)
    assert (len(params["revenue"]), len(params["amount"])) == (60_000, MAX_COPY_CHARS)
    assert parse_amount(params["amount"]) is None
