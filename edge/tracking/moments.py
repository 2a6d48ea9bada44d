"""The story of a transaction id as moments in order: what `explain` tells in lines, for a page."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from edge.tracking.postback_story import attempt_in_words, state_in_words
from edge.tracking.story import CONVERSION_FACTS, TOUCH_FACTS, Story, change_in_words, facts_of, way_of

Row = Mapping[str, Any]
Tone = Literal["", "good", "bad", "wait"]
_TONES: dict[str, Tone] = {
    "redirected": "good",
    "recorded": "good",
    "approved": "good",
    "delivered": "good",
    "pending": "wait",
    "fallback": "wait",
    "adjusted": "wait",
    "rejected": "bad",
    "reversed": "bad",
    "dead": "bad",
}


class Sight(NamedTuple):
    """Who looks. Columns that are hidden from them, and whether they see what partners are told."""

    hidden: frozenset[str] = frozenset()
    sees_postbacks: bool = True


class Moment(NamedTuple):
    """Something that happened. `word`: what became of it; `notes`: sentences; `facts`: labels and values."""

    at: datetime
    title: str
    word: str
    tone: Tone
    facts: list[tuple[str, str]]
    notes: list[str]


def moments_of(story: Story, sight: Sight, refusing_caps: Sequence[str] = ()) -> list[Moment]:
    """The story in the order in which things happened. `refusing_caps`: those that the click met."""
    return sorted(_moments(story, sight, refusing_caps), key=lambda one: one.at)


def _moments(story: Story, sight: Sight, refusing_caps: Sequence[str]) -> Iterator[Moment]:
    for title, touch in (("Impression", story.impression), ("Click", story.click)):
        if touch is not None:
            yield _touch(title, touch, sight, refusing_caps if title == "Click" else ())
    for number, conversion in enumerate(story.conversions, 1):
        title = f"Conversion {number}" if len(story.conversions) > 1 else "Conversion"
        changes = [one for one in story.changes if one["conversion_id"] == conversion["conversion_id"]]
        yield _conversion(title, conversion, changes, sight)
        yield from (_change(title, one, sight) for one in changes if one["kind"] != "decided")
        if sight.sees_postbacks:
            told = (one for one in story.postbacks if one["conversion_id"] == conversion["conversion_id"])
            yield from (_postback(one) for one in told)
    for waiting in story.waiting:
        until = f"It waits for its click until {waiting['deadline']:%Y-%m-%d %H:%M} UTC at the latest."
        yield Moment(waiting["received_at"], "Conversion", "waiting", "wait", [], [until])


def _touch(title: str, touch: Row, sight: Sight, refusing_caps: Sequence[str]) -> Moment:
    notes = [f"Because {touch['reason'].replace('_', ' ')}."] if touch["reason"] else []
    notes += [f"Flagged {', '.join(touch['flags'])}: it counts as gross only."] if touch["flags"] else []
    facts = [*way_of(touch), *(("cap", one) for one in refusing_caps), *_facts(touch, TOUCH_FACTS, sight)]
    facts.append(("catalog", f"revision {touch['catalog_revision']}"))
    return Moment(touch["clicked_at"], title, touch["outcome"], _TONES.get(touch["outcome"], ""), facts, notes)


def _conversion(title: str, conversion: Row, changes: Sequence[Row], sight: Sight) -> Moment:
    first = next((one for one in changes if one["kind"] == "decided"), None)
    word = first["status_after"] if first else conversion["status"]
    # What a later change gave as its reason is told with that change.
    reason = first["reason"] if first else conversion["reason"]
    notes = [f"Because {reason.replace('_', ' ')}."] if reason else []
    notes += [change_in_words(first)] if first and first["note"] else []
    facts = [("id", conversion["conversion_id"].hex), *_credit(conversion), *_facts(conversion, CONVERSION_FACTS, sight)]
    facts.append(("judged", f"status code {conversion['status_code']}, by {conversion['via']}"))
    return Moment(conversion["received_at"], title, word, _TONES.get(word, ""), facts, notes)


def _credit(conversion: Row) -> Iterator[tuple[str, str]]:
    if conversion["named_click_id"]:
        yield "named", f"click {conversion['named_click_id'].hex}"
        yield "credited", f"click {conversion['click_id'].hex}"
    if conversion["aff_id"]:
        yield "partner", str(conversion["aff_id"])


def _change(title: str, change: Row, sight: Sight) -> Moment:
    money = [name for name in ("amount", "payout", "revenue") if name not in sight.hidden]
    words = f"By {change['actor']}: {change_in_words(change, money)}"
    return Moment(change["changed_at"], title, change["kind"], _TONES.get(change["kind"], ""), [], [words])


def _postback(row: Row) -> Moment:
    notes = [state_in_words(row)]
    for attempt in row["log"]:
        notes.append(f"{attempt['method']} {attempt['url']}")
        notes.append(attempt_in_words(attempt))
    title = f"Postback to partner {row['aff_id']}: {row['status']}"
    return Moment(row["created_at"], title, row["state"], _TONES.get(row["state"], ""), [], notes)


def _facts(row: Row, facts: Sequence[tuple[str, str]], sight: Sight) -> list[tuple[str, str]]:
    """What the row says of what they may see; money as it is written, not as it is stored."""
    written = {column: _amount(value) if isinstance(value, Decimal) else value for column, value in row.items()}
    return list(facts_of(written, [(label, column) for label, column in facts if column not in sight.hidden]))


def _amount(value: Decimal) -> str:
    """5.00, 0.125; "" for nothing."""
    whole, _, decimals = f"{value:.6f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}" if value else ""
