"""edge/tracking/crediting.py: what else than a click's id names somebody, and which of several clicks counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.crediting import Candidate, Credit, choose, credit_without_click, find_promo, is_external_id
from tests.wire.edge_state import build_catalog

CATALOG = build_catalog(
    """
[[advertisers]]
id = 1
name = "A"
[[partners]]
id = 2
name = "P"
[[offers]]
id = 17
advertiser_id = 1
name = "Codes"
url = "https://shop.example.com/"
promo_codes = [{ code = "Straße", aff_id = 2 }]
[[offers]]
id = 18
advertiser_id = 1
name = "Rebills"
url = "https://shop.example.com/"
tracking = "partner_id"
promo_codes = [{ code = "XMAS", aff_id = 2 }]
"""
)
CODES, REBILLS = CATALOG.offer(17), CATALOG.offer(18)


@pytest.mark.parametrize("text", ["A", "1027c8.x_~-9", "x" * 64, "0" * 32])
def test_letters_digits_and_four_signs_make_an_external_id(text: str) -> None:
    """At most 64 of them."""
    assert is_external_id(text)


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a/b", "<b>", "ü", "a\n", "٣"])
def test_anything_else_is_none(text: str) -> None:
    """It could not be echoed or logged as it is."""
    assert not is_external_id(text)


@pytest.mark.parametrize(("code", "is_found"), [("Straße", True), ("STRASSE", True), ("strasse", True), ("S", False)])
def test_a_promo_codes_case_does_not_count(code: str, is_found: bool) -> None:
    """Buyers type it."""
    assert (find_promo(CODES, {"promo_code": code}) is not None) is is_found
    assert credit_without_click(CODES, {"promo_code": code}) == (Credit(2, "promo_code") if is_found else None)


def test_a_partner_is_believed_only_where_the_offer_tracks_by_him() -> None:
    """His id beats a promo code there; elsewhere it means nothing."""
    assert credit_without_click(REBILLS, {"aff_id": "7", "promo_code": "XMAS"}) == Credit(7, "partner_id")
    assert credit_without_click(REBILLS, {"aff_id": "x", "promo_code": "xmas"}) == Credit(2, "promo_code")
    assert credit_without_click(CODES, {"aff_id": "7"}) is None
    assert credit_without_click(None, {"aff_id": "7", "promo_code": "XMAS"}) is None


def candidate(ms: int, window_s: int = 10) -> Candidate:
    return Candidate(ms.to_bytes(16, "big"), ms, window_s)


def test_each_candidate_is_judged_by_its_own_window() -> None:
    """The very end of it still counts."""
    clicks = [candidate(1_000), candidate(2_000, 9), candidate(3_000)]
    for converted_ms, first in ((11_000, 0), (11_001, 2)):
        assert choose(clicks, "first", converted_ms) == clicks[first].click_id
        assert choose(clicks, "last", converted_ms) == clicks[2].click_id
    assert choose(clicks, "last", 13_001) == b""
    assert choose([], "first", 1) == b""


@given(st.lists(st.integers(0, 10**6), min_size=1), st.integers(10**6, 10**7))
def test_the_order_of_candidates_does_not_matter(times: list[int], converted_ms: int) -> None:
    """First and last are by the id, which grows with time."""
    clicks = [candidate(ms, 10**6) for ms in times]
    assert choose(clicks, "first", converted_ms) == choose(clicks[::-1], "first", converted_ms) == min(clicks).click_id
    assert choose(clicks, "last", converted_ms) == max(clicks).click_id
