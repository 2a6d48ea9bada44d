"""What a partner was told, in words: for `explain` and for lists."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from edge.tracking.postbacks import without_secrets

Row = Mapping[str, Any]
MAX_ANSWER_CHARS = 200


def tell_postback(row: Row) -> Iterator[str]:
    """An outbox row with its attempts, indented as below a conversion."""
    by_hand = f", {row['actor']}" if row["actor"] else ""
    yield f"    {'postback':<13} {row['status']} to partner {row['aff_id']} at {row['host']}: {state_in_words(row)}{by_hand}"
    for attempt in row["log"]:
        yield f"      {_when(attempt['attempted_at'])} {attempt['method']} {_shown(attempt['url'])}"
        yield f"        {attempt_in_words(attempt)}"


def tell_row(row: Row) -> str:
    """An outbox row with its last attempt, on one line."""
    told = f"{_when(row['created_at'])}  {row['conversion_id'].hex}  partner {row['aff_id']}  {row['status']}"
    last = f"  {attempt_in_words(row)}" if row["attempted_at"] else ""
    return f"{told}  {state_in_words(row)}  {row['method']} {_shown(row['url_sent'] or without_secrets(row['url']))}{last}"


def state_in_words(row: Row) -> str:
    """What became of an outbox row."""
    tried = f"{row['attempts']} attempt{'s' if row['attempts'] != 1 else ''}"
    match row["state"]:
        case "delivered":
            return f"delivered, {tried}"
        case "dead":
            return f"given up, {tried}"
        case "replayed":
            return f"replaced by a replay, {tried}"
    if row["leased_by"] is not None:
        return f"being sent, {tried}"
    return f"pending, {tried}, the next at {_when(row['next_attempt_at'])}"


def attempt_in_words(attempt: Row) -> str:
    """How one attempt ended."""
    code, duration = attempt["status_code"], f"{attempt['duration_ms']} ms"
    if not code:
        return f"failed after {duration}: {_shown(attempt['error'])}"
    answer = f": {_shown(attempt['answer'][:MAX_ANSWER_CHARS])}" if attempt.get("answer") else ""
    why = f" ({_shown(attempt['error'])})" if attempt["error"] and 300 <= code < 400 else ""
    return f"answered {code} in {duration}{why}{answer}"


def _shown(value: str) -> str:
    """On one line, and without anything a terminal would obey."""
    return value if value.isprintable() else ascii(value)


def _when(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="milliseconds")
