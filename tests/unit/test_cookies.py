"""edge/tracking/cookies.py: the browser's memory of its first and last click of an offer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking import cookies
from edge.tracking.catalog import OfferView
from tests.steps import count_steps
from tests.wire.edge_state import NOW_MS, build_state, request_of

STATE = build_state()
FIRST, LAST = STATE.ids.mint(NOW_MS), STATE.ids.mint(NOW_MS)
BOTH = f"{FIRST.hex()}.{LAST.hex()}"


def offer(offer_id: int = 17) -> OfferView:
    view = STATE.catalog.offer(offer_id)
    assert view is not None
    return view


@pytest.mark.parametrize(
    "header", [f"ce_17={BOTH}", f"a=b; ce_17={BOTH};ce_18=x", f"ce_170=x; ce_17={BOTH}", f"ce_17={BOTH.upper()}"]
)
def test_the_offers_cookie_is_found_among_others(header: str) -> None:
    """First and last click, by the offer's own name."""
    request = request_of(headers={"Cookie": header})
    assert cookies.session_ids(request, offer(), STATE.ids) == (FIRST, LAST)
    assert cookies.click_of(request, offer(), "first", STATE.ids) == FIRST
    assert cookies.click_of(request, offer(), "last", STATE.ids) == LAST


def test_a_seed_follows_the_clicks_and_changes_nothing_about_them() -> None:
    """It is written where a choice hung on the visitor, and read back; pixels find their click as without it."""
    value = cookies.remember_seed(offer(), FIRST, LAST.hex(), b"\x01\xab\x00\xff", is_https=True)
    assert value.startswith(f"ce_17={BOTH}.01ab00ff; Max-Age=2592000; ")
    request = request_of(headers={"Cookie": value.partition(";")[0]})
    assert cookies.seed(request, offer(), STATE.ids) == b"\x01\xab\x00\xff"
    assert cookies.session_ids(request, offer(), STATE.ids) == (FIRST, LAST)
    for none in (f"ce_17={BOTH}", f"ce_17={LAST.hex()}.{'0' * 32}.01ab00ff", f"ce_18={BOTH}.01ab00ff", "ce_17=..01ab00ff"):
        assert cookies.seed(request_of(headers={"Cookie": none}), offer(), STATE.ids) == b""
    first = cookies.remember_seed(offer(), b"", LAST.hex(), b"seed", is_https=False)
    assert first.startswith(f"ce_17={LAST.hex()}.{LAST.hex()}.{b'seed'.hex()};")
    assert cookies.remember_seed(offer(), FIRST, LAST.hex(), b"", is_https=False).startswith(f"ce_17={BOTH};")


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ce_17={BOTH}.",
        f"ce_17={BOTH}.01AB00FF",
        f"ce_17={BOTH}.01ab00f",
        f"ce_17={BOTH}.01ab00ff.",
        f"ce_18={BOTH}",
        f"xce_17={BOTH}",
        "ce_17=",
        "ce_17",
        f"ce_17={FIRST.hex()}",
        f"ce_17={FIRST.hex()}.",
        f"ce_17=.{LAST.hex()}",
        f"ce_17={FIRST.hex()}.{LAST.hex()}.x",
        f"ce_17={FIRST.hex()}.{'0' * 32}",
        f"ce_17={BOTH[:-1]}{'0' if BOTH[-1] != '0' else '1'}",
        "ce_17=\udcff.\udcff",
    ],
)
def test_a_cookie_that_is_not_wholly_ours_is_none(header: str) -> None:
    """Another offer's, half a one, a forged one: as if the browser had sent nothing."""
    request = request_of(headers={"Cookie": header})
    assert cookies.session_ids(request, offer(), STATE.ids) is None
    assert cookies.click_of(request, offer(), "last", STATE.ids) == b""


@given(st.text())
def test_no_cookie_makes_it_fail(header: str) -> None:
    """Nobody can make up a cookie that verifies."""
    assert cookies.session_ids(request_of(headers={"Cookie": header}), offer(), STATE.ids) is None


def test_a_first_click_is_both_first_and_last() -> None:
    """Max-Age is the offer's window; scripts cannot read it; every path gets it."""
    value = cookies.remember(offer(18), b"", LAST.hex(), is_https=False)
    assert value == f"ce_18={LAST.hex()}.{LAST.hex()}; Max-Age=1209600; Path=/; HttpOnly"


def test_a_later_click_keeps_the_first_one() -> None:
    """Only the last changes."""
    value = cookies.remember(offer(), FIRST, LAST.hex(), is_https=True)
    assert value == f"ce_17={BOTH}; Max-Age=2592000; Path=/; HttpOnly; SameSite=None; Secure"


@pytest.mark.parametrize(("age_ms", "is_kept"), [(14 * 86_400_000, True), (14 * 86_400_000 + 1, False)])
def test_a_first_click_beyond_the_window_gives_way_to_the_last(age_ms: int, is_kept: bool) -> None:
    """Every click renews the cookie, so that its first may be months old; offer 18 looks back 14 days."""
    now_ms = NOW_MS + age_ms
    ids = build_state().ids
    first = ids.mint(NOW_MS)
    last = ids.mint(now_ms)
    request = request_of(headers={"Cookie": f"ce_18={first.hex()}.{last.hex()}"}, now_ms=now_ms)
    assert cookies.session_ids(request, offer(18), ids) == (first if is_kept else last, last)


def test_a_hostile_cookie_header_is_not_read_pair_by_pair() -> None:
    """Thirty thousand semicolons were as many steps, 2 ms of everybody's time; ours behind them is found all the same."""
    hostile = request_of(headers={"Cookie": ";" * 30_000 + f"ce_17={BOTH}"})
    assert cookies.session_ids(hostile, offer(), STATE.ids) == (FIRST, LAST)
    assert count_steps(lambda: cookies.session_ids(hostile, offer(), STATE.ids)) < 1_000
