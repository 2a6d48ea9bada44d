"""The console's parts that need no server: figures in words, pinned libraries, moments of a story."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from edge.admin.console import formats
from edge.admin.console.reports.result import _Maker
from edge.admin.console.vendor import PACKAGES, VENDOR, unpack
from edge.admin.sight import sight_of
from edge.tracking.story import CONVERSION_FACTS, TOUCH_FACTS
from edge.tracking.timeline import Sight, timeline
from storage.postgres.reports.query import parse_query
from storage.postgres.reports.report import Column, Report, Row
from storage.postgres.reports.viewer import ADMIN
from storage.postgres.stories import Story

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def test_figures_are_written_as_people_read_them() -> None:
    """Nothing is a dash, not a zero; cents are kept, sixths of a cent where they say something."""
    assert (formats.count(1234567), formats.count(None)) == ("1,234,567", formats.NOTHING)
    assert [formats.money(Decimal(one)) for one in ("5", "1234.5", "0.0125", "-2")] == ["5.00", "1,234.50", "0.0125", "-2.00"]
    assert (formats.cash(Decimal("2.005")), formats.percent(Decimal(4))) == ("2.00", "4.00 %")
    assert [formats.duration(one) for one in (0.21, 45, 180, 7500, 90_000, 86_400)] == [
        "0.2 s", "45 s", "3 min", "2 h 5 min", "1 d 1 h", "1 d",
    ]  # fmt: skip
    assert [formats.size(one) for one in (512, 1536, 3 * 2**30)] == ["512 B", "1.5 KiB", "3.0 GiB"]


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (110, 100, "+10 %"), (90, 100, "-10 %"), (5, 0, ""), (None, 3, ""), (5000, 100, "50 times"), (-1, -2, "+50 %"),
        (20, -1, "+2,100 %"), (-20, 1, "-2,100 %"), (-50, -2, "-2,400 %"),
    ],
)
def test_a_change_says_nothing_where_there_was_nothing(now: int | None, before: int, said: str) -> None:
    """Division by nothing is empty; what grew many times over is said so."""
    assert formats.change(now, before) == said


def test_another_archive_than_the_pinned_one_is_refused() -> None:
    """And every file of the pinned ones is here, with its licence."""
    with pytest.raises(ValueError, match="its SHA-256 is"):
        unpack(PACKAGES[0], b"something else")
    for package in PACKAGES:
        assert any(name.startswith("LICENSE") for name in package.files)
        for name in package.files:
            assert (VENDOR / name).stat().st_size > 500


def test_a_story_comes_in_order_and_hides_what_is_not_theirs() -> None:
    """Each change is a moment of its own; a partner reads no revenue in any of them."""
    columns = {column for _, column in (*TOUCH_FACTS, *CONVERSION_FACTS)}
    blank: dict[str, Any] = dict.fromkeys(columns, "") | {"extras": {}, "reason": "", "catalog_revision": 1}
    click = blank | {"clicked_at": AT, "outcome": "redirected", "flags": ["bot"], "offer_id": 17, "revenue": Decimal("7.77")}
    conversion_id = UUID(int=5)
    conversion = blank | {
        "conversion_id": conversion_id, "received_at": AT + timedelta(minutes=1), "status": "reversed", "reason": "refund",
        "status_code": 43, "via": "postback", "named_click_id": None, "aff_id": 2, "amount": Decimal(40),
        "payout": Decimal("5.125"), "revenue": Decimal("7.77"),
    }  # fmt: skip
    change = {
        "conversion_id": conversion_id, "actor": "drain", "reason": "", "note": "", "cause_id": None, "booked_hour": AT,
        **{f"{name}_{what}": Decimal(0) for name in ("amount", "payout", "revenue") for what in ("delta", "after")},
    }  # fmt: skip
    decided = change | {"kind": "decided", "changed_at": AT + timedelta(minutes=1), "status_after": "approved", "note": "why"}
    reversed_ = change | {"kind": "reversed", "changed_at": AT + timedelta(days=1), "status_before": "approved", "reason": "refund"}
    story = Story(click, None, [conversion], [decided, reversed_], [], [])
    told = timeline(story)
    assert [(one.title, one.word, one.tone) for one in told] == [
        ("Click", "redirected", "good"), ("Conversion", "approved", "good"), ("Conversion", "reversed", "bad"),
    ]  # fmt: skip
    assert told[1].notes == ["why"]
    assert ("payout", "5.125") in told[1].facts
    assert "because refund" in told[2].notes[0]
    assert "7.77" in str(told)
    hidden = timeline(story, sight=Sight(frozenset(("revenue",))))
    assert "7.77" not in str(hidden)
    assert "revenue" not in str(hidden)


def test_a_loss_where_there_was_nothing_is_no_good_news() -> None:
    """It is new, and in red; a profit that is new is in green."""
    query = parse_query([("metrics", "profit")], ADMIN, AT)
    column = Column("profit", "Profit", "money")
    report = cast("Report", SimpleNamespace(query=query, currencies=["USD"], dimensions=[], metrics=[column]))
    for now, tone in ((Decimal(-5), "bad"), (Decimal(5), "good")):
        row = Row({}, {"profit": now}, {"profit": Decimal(0)}, {"profit": None})
        change = _Maker(report, [], ADMIN).change(column, row)
        assert (change.text, change.tone) == ("new", tone)


def test_who_had_a_postback_sent_again_is_for_the_network() -> None:
    """A partner reads that and when it was told, not who of us asked for it."""
    columns = {column for _, column in CONVERSION_FACTS}
    conversion_id = UUID(int=5)
    conversion: dict[str, Any] = dict.fromkeys(columns, "") | {
        "conversion_id": conversion_id, "received_at": AT, "status": "approved", "reason": "", "status_code": 43, "via": "postback",
        "named_click_id": None, "aff_id": 2, "extras": {},
    }  # fmt: skip
    postback = {
        "conversion_id": conversion_id, "aff_id": 2, "status": "approved", "state": "delivered", "attempts": 1,
        "actor": "replay by Manager Mia", "created_at": AT, "log": [],
    }  # fmt: skip
    story = Story(None, None, [conversion], [], [], [postback])
    assert "Manager Mia" in str(timeline(story))
    told = timeline(story, sight=sight_of("partner"))
    assert "Postback to partner 2" in str(told)
    assert "Manager Mia" not in str(told)
