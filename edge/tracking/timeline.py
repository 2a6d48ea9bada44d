"""The story of a transaction id as entries in the order of their time: what `story` tells in lines, for pages and programs."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec

from edge.tracking.postback_story import attempt_in_words, state_in_words
from edge.tracking.story import (
    CONVERSION_FACTS,
    TOUCH_FACTS,
    Fact,
    Story,
    awaited_by,
    change_in_words,
    facts_of,
    way_of,
)

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


NETWORK = Sight()


class Entry(msgspec.Struct, frozen=True):
    """Something that happened. `kind`: click, impression, conversion, waiting, postback, or a change's own (approved,
    rejected, adjusted, reversed); `word`: what became of it; `notes`: sentences; `facts`: labels and values;
    `id`: of the conversion that it is about, empty for none.
    """

    at: datetime
    kind: str
    title: str
    word: str
    tone: Tone
    facts: list[Fact] = []
    notes: list[str] = []
    id: str = ""


def timeline(story: Story, refusing_caps: Sequence[str] = (), sight: Sight = NETWORK) -> list[Entry]:
    """All that happened, the earliest first; of one moment in the order in which one led to another.

    `refusing_caps`: those that the click met.
    """
    return sorted(_entries(story, refusing_caps, sight), key=lambda entry: entry.at)


def _entries(story: Story, refusing_caps: Sequence[str], sight: Sight) -> Iterator[Entry]:
    for kind, touch in (("impression", story.impression), ("click", story.click)):
        if touch is not None:
            yield _touch(kind, touch, sight, refusing_caps if kind == "click" else ())
    for number, conversion in enumerate(story.conversions, 1):
        title = f"Conversion {number}" if len(story.conversions) > 1 else "Conversion"
        yield from conversion_entries(title, conversion, story.changes, story.postbacks, sight)
    if story.erased_at:
        yield Entry(story.erased_at, "erased", "Erased", "erased", "", notes=["What named somebody is gone."])
    for waiting in story.waiting:
        until = f"It waits for {awaited_by(waiting)} until {waiting['deadline']:%Y-%m-%d %H:%M} UTC at the latest."
        conversion_id = waiting["conversion_id"].hex
        yield Entry(waiting["received_at"], "waiting", "Conversion", "waiting", "wait", notes=[until], id=conversion_id)


def conversion_entries(
    title: str, conversion: Row, changes: Sequence[Row], postbacks: Sequence[Row], sight: Sight
) -> Iterator[Entry]:
    """A conversion, then each of its changes, then what partners were told of it."""
    mine = [one for one in changes if one["conversion_id"] == conversion["conversion_id"]]
    yield _conversion(title, conversion, mine, sight)
    yield from (_change(title, one, sight) for one in mine if one["kind"] != "decided")
    if sight.sees_postbacks:
        yield from (_postback(one, sight) for one in postbacks if one["conversion_id"] == conversion["conversion_id"])


def _touch(kind: str, touch: Row, sight: Sight, refusing_caps: Sequence[str]) -> Entry:
    notes = [f"Because {touch['reason'].replace('_', ' ')}."] if touch["reason"] else []
    notes += [f"Flagged {', '.join(touch['flags'])}: it counts as gross only."] if touch["flags"] else []
    facts = [*way_of(touch), *(("cap", one) for one in refusing_caps), *_facts(touch, TOUCH_FACTS, sight)]
    facts.append(("catalog", f"revision {touch['catalog_revision']}"))
    word = touch["outcome"]
    return Entry(touch["clicked_at"], kind, kind.capitalize(), word, _TONES.get(word, ""), facts, notes)


def _conversion(title: str, conversion: Row, changes: Sequence[Row], sight: Sight) -> Entry:
    first = next((one for one in changes if one["kind"] == "decided"), None)
    word = first["status_after"] if first else conversion["status"]
    # What a later change gave as its reason is told with that change.
    reason = first["reason"] if first else conversion["reason"]
    notes = [f"Because {reason.replace('_', ' ')}."] if reason else []
    notes += [change_in_words(first)] if first and first["note"] and "note" not in sight.hidden else []
    facts = [("id", conversion["conversion_id"].hex), *_credit(conversion, sight), *_facts(conversion, CONVERSION_FACTS, sight)]
    facts.append(("judged", f"status code {conversion['status_code']}, by {conversion['via']}"))
    at, tone, conversion_id = conversion["received_at"], _TONES.get(word, ""), conversion["conversion_id"].hex
    return Entry(at, "conversion", title, word, tone, facts, notes, conversion_id)


def _credit(conversion: Row, sight: Sight) -> Iterator[Fact]:
    if conversion["named_click_id"] and "named_click_id" not in sight.hidden:
        yield "named", f"click {conversion['named_click_id'].hex}"
        yield "credited", f"click {conversion['click_id'].hex}"
    if conversion["aff_id"]:
        yield "partner", str(conversion["aff_id"])


def _change(title: str, change: Row, sight: Sight) -> Entry:
    money = [name for name in ("amount", "payout", "revenue") if name not in sight.hidden]
    told = change_in_words({**change, "note": ""} if "note" in sight.hidden else change, money)
    words = told if "actor" in sight.hidden else f"By {change['actor']}: {told}"
    kind = change["kind"]
    return Entry(change["changed_at"], kind, title, kind, _TONES.get(kind, ""), notes=[words], id=change["conversion_id"].hex)


def _postback(row: Row, sight: Sight) -> Entry:
    is_told_who = bool(row["actor"]) and "actor" not in sight.hidden
    notes = [state_in_words(row)] + ([f"Asked for: {row['actor']}."] if is_told_who else [])
    for attempt in row["log"]:
        notes.append(f"{attempt['method']} {attempt['url']}")
        notes.append(f"{attempt['attempted_at'].isoformat(sep=' ', timespec='seconds')}: {attempt_in_words(attempt)}")
    title = f"Postback to partner {row['aff_id']}: {row['status']}"
    tone = _TONES.get(row["state"], "")
    return Entry(row["created_at"], "postback", title, row["state"], tone, notes=notes, id=row["conversion_id"].hex)


def _facts(row: Row, facts: Sequence[tuple[str, str]], sight: Sight) -> list[Fact]:
    """What the row says of what they may see; money as it is written, not as it is stored."""
    written = {column: _amount(value) if isinstance(value, Decimal) else value for column, value in row.items()}
    if ("click_extras" if "outcome" in row else "extras") in sight.hidden:
        written["extras"] = {}
    return list(facts_of(written, [(label, column) for label, column in facts if column not in sight.hidden]))


def _amount(value: Decimal) -> str:
    """5.00, 0.125; "" for nothing."""
    whole, _, decimals = f"{value:.6f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}" if value else ""
