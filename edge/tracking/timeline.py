"""The story of a transaction id as entries in the order of their time: what `story` tells in lines, for pages and programs."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from edge.tracking.postback_story import attempt_in_words, state_in_words
from edge.tracking.story import Fact, Story, change_in_words, conversion_facts, touch_facts

Row = Mapping[str, Any]


class Entry(msgspec.Struct, frozen=True):
    """Something that happened. `kind`: click, impression, conversion, waiting, postback, attempt, or a change's own
    (decided, approved, rejected, adjusted, reversed); `id`: of the conversion that it is about, empty for none.
    """

    at: datetime
    kind: str
    title: str
    facts: list[Fact]
    id: str = ""


def timeline(story: Story, refusing_caps: Sequence[str] = ()) -> list[Entry]:
    """All that happened, the earliest first; of one moment in the order in which one led to another."""
    return sorted(_entries(story, refusing_caps), key=lambda entry: entry.at)


def _entries(story: Story, refusing_caps: Sequence[str]) -> Iterator[Entry]:
    for kind, touch in (("click", story.click), ("impression", story.impression)):
        if touch:
            met = [("cap", one) for one in refusing_caps] if touch is story.click else []
            revision = ("catalog", f"revision {touch['catalog_revision']}")
            yield Entry(touch["clicked_at"], kind, _what(touch, "outcome"), [*touch_facts(touch), *met, revision])
    for conversion in story.conversions:
        conversion_id = conversion["conversion_id"].hex
        yield Entry(conversion["received_at"], "conversion", _received(conversion), _worth(conversion), conversion_id)
    for change in story.changes:
        title = f"{change['status_after']} by {change['actor']}" if change["kind"] == "decided" else change["kind"]
        facts = [("by", change["actor"]), ("why", change_in_words(change))]
        yield Entry(change["changed_at"], change["kind"], title, facts, change["conversion_id"].hex)
    for waiting in story.waiting:
        until = waiting["deadline"].isoformat(sep=" ", timespec="seconds")
        facts = [("until", until)]
        yield Entry(waiting["received_at"], "waiting", "a conversion waits for its click", facts, waiting["conversion_id"].hex)
    for row in story.postbacks:
        yield from _postback(row)


def _postback(row: Row) -> Iterator[Entry]:
    conversion_id, where = row["conversion_id"].hex, f"partner {row['aff_id']} at {row['host']}"
    facts = [("state", state_in_words(row))] + ([("asked for", row["actor"])] if row["actor"] else [])
    yield Entry(row["created_at"], "postback", f"{row['status']} to be told to {where}", facts, conversion_id)
    for attempt in row["log"]:
        sent = ("sent", f"{attempt['method']} {attempt['url']}")
        yield Entry(attempt["attempted_at"], "attempt", attempt_in_words(attempt), [sent], conversion_id)


def _received(conversion: Row) -> str:
    return f"received by {conversion['via']}, now {_what(conversion, 'status')}"


def _worth(conversion: Row) -> list[Fact]:
    code = ("status code", str(conversion["status_code"]))
    return [*conversion_facts(conversion), code, ("catalog", f"revision {conversion['catalog_revision']}")]


def _what(row: Row, column: str) -> str:
    return f"{row[column]} because {row['reason']}" if row["reason"] else str(row[column])
