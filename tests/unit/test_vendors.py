"""edge/tracking/vendors: every row can be reached, has an example, and maps to what handlers know."""

import re

import pytest

from edge.tracking.dialects import HOT_PATHS, KINDS, RESERVED_PATHS, TABLE, Entry, find_pattern, find_row, is_pattern
from edge.tracking.parameters import parse_query
from edge.tracking.vendors import VENDORS
from edge.tracking.vendors.row import Row
from tests.wire.dialect_examples import EXAMPLES, Example
from tests.wire.edge_state import request_of

STATUSES = {"approved", "pending", "rejected", "reversed"}
OURS = {
    "transaction_id", "offer_id", "aff_id", "goal_id", "goal_name", "amount", "payout", "revenue", "currency", "source",
    "url", "url_id", "file_id", "contact_id", "promo_code", "security_token", "datetime", "ip", "ios_ifa", "landing_url", "cost",
    "adv_unique1", *(f"aff_sub{number}" for number in range(1, 6)), *(f"adv_sub{number}" for number in range(1, 6)),
}  # fmt: skip
"""What a vendor's parameter may become."""


def label(entry: Entry) -> str:
    return " ".join((entry.vendor, entry.row.path, *entry.row.tells))


def meant(path: str, query: str) -> Entry | None:
    """The row that a request with these parameters is meant for."""
    match = find_row(request_of(query, path=path)) if path in HOT_PATHS else find_pattern(path)
    return match.entry if match else None


def shown_by(row: Row, example: Example) -> bool:
    """Whether the example is a request of this row."""
    path, _, query = example.target.partition("?")
    entry = meant(path, query + "&" + example.body if "urlencoded" in example.type else query)
    return entry is not None and entry.row is row


@pytest.mark.parametrize("entry", TABLE, ids=label)
def test_no_row_is_hidden_by_an_earlier_one(entry: Entry) -> None:
    """A request that says just what the row asks for is meant for it and nobody else."""
    path = re.sub(r"\{[a-z]+\}", "x1", entry.row.path)
    query = "&".join(tell if "=" in tell else f"{tell}=1" for tell in entry.row.tells)
    assert meant(path, query) is entry
    assert path in HOT_PATHS or is_pattern(path)


@pytest.mark.parametrize("entry", TABLE, ids=label)
def test_every_row_has_an_example(entry: Entry) -> None:
    """What a vendor documents is what is tested; a row that nobody sends has no place."""
    assert [one for one in EXAMPLES if one.vendor == entry.vendor and shown_by(entry.row, one)]


@pytest.mark.parametrize("entry", TABLE, ids=label)
def test_a_row_says_only_what_handlers_know(entry: Entry) -> None:
    """Kinds, our parameters' names and statuses are of ours; a listed word stands for one of the vendor's."""
    row = entry.row
    assert row.kind in KINDS
    assert {one for ours in row.names.values() for one in ours.split()} <= OURS
    if row.statuses:
        assert set(row.statuses.words.values()) <= STATUSES
        assert set(row.statuses.lists.values()) <= set(row.statuses.words)
        assert all(word == word.lower() for word in row.statuses.words)
        assert row.statuses.name not in row.names
    assert "{" in row.path or not row.must_resolve


def test_every_vendor_has_examples_of_its_own_and_no_example_is_nobodys() -> None:
    """A file of examples per table."""
    assert {vendor.name for vendor in VENDORS} == {example.vendor for example in EXAMPLES}
    assert len({example.key for example in EXAMPLES}) == len(EXAMPLES)


def test_no_alias_can_be_hidden_by_a_vendors_path() -> None:
    """The single segments that vendors take are reserved; those with a dot or a second segment cannot be an alias."""
    assert {"click", "postback", "clk", "aff_c"} <= RESERVED_PATHS
    assert all("/" not in path for path in RESERVED_PATHS)


@pytest.mark.parametrize(
    ("path", "query", "vendor"),
    [
        ("/postback", "cid=1&clickid=2", "voluum"),
        ("/postback", "clickid=2&sum=1", "redtrack"),
        ("/click.php", "cnv_id=1&key=2", "binom"),
        ("/", "nid=1&transaction_id=2", "everflow"),
        ("/", "a=1&c=2&transaction_id=3", "cake"),
        ("/", "a_aid=1", "post_affiliate_pro"),
        ("/clk", "oid=1", "everflow"),
        ("/clk", "offer_id=1", "tune"),
        ("/k/postback", "", "keitaro"),
        ("/2/17", "", "everflow"),
        ("/2/17/", "", "everflow"),
        ("/c/1/2/3", "", "impact"),
    ],
)
def test_a_telling_parameter_says_whose_request_it_is(path: str, query: str, vendor: str) -> None:
    """Where two vendors could be meant the order of the tables decides."""
    entry = meant(path, query)
    assert entry is not None
    assert entry.vendor == vendor


@pytest.mark.parametrize("path", ["/", "/x", "/a/b/c", "/a//", "/a/b?", "/" + "a" * 65 + "/b", "/é/b", "/a/b/postback"])
def test_other_paths_are_no_pattern(path: str) -> None:
    """One to 64 letters, digits, `-` and `_` a segment."""
    assert not is_pattern(path)
    assert parse_query(path) is not None
