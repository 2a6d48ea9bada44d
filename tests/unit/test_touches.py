"""The verdict where something else than the named click is credited: a view, another click, a partner without one."""

from typing import Any

import msgspec
import pytest

from edge.tracking.catalog_document import Advertiser
from tests.unit.test_attribution import CLICK_ID, CLICK_MS, DAY_MS, HOUR_MS, TOUCH, offer, sent, verdict_on

VIEW = msgspec.structs.replace(TOUCH, kind="impression")


@pytest.mark.parametrize(
    ("window_s", "after_ms", "expected"),
    [
        (3600, HOUR_MS, ("approved", "1:00:00 after the view, by postback")),
        (3600, HOUR_MS + 1, ("rejected", "1:00:00 after the view; its window is 1:00:00")),
        (0, 0, ("rejected", "0:00:00 after the view; its window is 0:00:00")),
    ],
)
def test_a_view_has_a_window_of_its_own(window_s: int, after_ms: int, expected: tuple[str, str]) -> None:
    """`impression_window`; with 0 no view converts, not even at once. The click's window is another."""
    its_offer = offer(impression_window_s=window_s, click_window_s=1)
    verdict = verdict_on(sent(after_ms), its_offer, touch=VIEW)
    assert (verdict.status, verdict.explanation) == expected


NAMED_ID = bytes([1]) * 16
MOVED = msgspec.structs.replace(TOUCH, named_id=NAMED_ID, why="credited to another")


def test_a_conversion_credited_to_another_click_claims_both() -> None:
    """So that the same postback sent again is a duplicate wherever its credit would go; the reason is told."""
    verdict = verdict_on(sent(), touch=MOVED)
    assert verdict.claims == (f"c:{CLICK_ID.hex()}:0", f"c:{NAMED_ID.hex()}:0")
    assert verdict.explanation == "1:00:00 after the click, by postback; credited to another"
    by_event = verdict_on(sent(adv_unique1="a"), offer(duplicates="by_event_id"), touch=MOVED)
    assert by_event.claims == (f"e:{CLICK_ID.hex()}:0:a", f"e:{NAMED_ID.hex()}:0:a")
    refused = verdict_on(sent(31 * DAY_MS), touch=MOVED)
    assert refused.explanation.endswith("; credited to another")


NOBODYS = msgspec.structs.replace(TOUCH, click_id=b"", ms=CLICK_MS + HOUR_MS, kind="promo_code", why="by code")


def test_without_a_click_neither_window_nor_haste_apply_and_only_an_event_id_is_claimed() -> None:
    """A rebill repeats by nature. `conversion_unique_id` counts as ever."""
    its_offer = offer(click_window_s=0, min_seconds_to_convert=60)
    verdict = verdict_on(sent(), its_offer, touch=NOBODYS)
    assert (verdict.status, verdict.claims, verdict.explanation) == ("approved", (), "by postback, by code")
    assert verdict_on(sent(adv_unique1="a"), its_offer, touch=NOBODYS).claims == ("p:17:2:0:a",)
    assert verdict_on(sent(conversion_unique_id="u"), its_offer, touch=NOBODYS).claims == ("u:u",)
    assert verdict_on(sent(adv_unique1="a"), offer(duplicates="new"), touch=NOBODYS).claims == ()


@pytest.mark.parametrize(("days", "is_believed"), [(29, True), (31, False)])
def test_without_a_click_a_conversion_may_be_dated_back_thirty_days(days: int, is_believed: bool) -> None:
    """With the token, as ever."""
    at_ms = (CLICK_MS + HOUR_MS) // 1000 * 1000 - days * DAY_MS
    guarded = Advertiser(id=1, name="A", security_token="t")
    facts = sent(datetime=str(at_ms // 1000), security_token="t")
    verdict = verdict_on(facts, touch=NOBODYS, advertiser=guarded)
    assert (verdict.converted_ms == at_ms) is is_believed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "genuine"),
        ({"is_external": True, "transaction_id": "T.1"}, "not ours"),
        ({"transaction_id": ""}, "named no click"),
    ],
)
def test_an_unknown_click_is_told_apart_by_what_was_sent(changes: dict[str, Any], said: str) -> None:
    """Our id, somebody else's, or none."""
    facts = msgspec.structs.replace(sent(), **changes)
    verdict = verdict_on(facts, touch=None)
    assert (verdict.reason, said in verdict.explanation) == ("unknown_click", True)
