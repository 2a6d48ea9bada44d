"""Stored conversions as they were received, as far as their rows say: what a replay decides anew.

Not stored, and so taken as they were: tokens, signatures, addresses of senders, amounts and goals that were refused.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from edge.drain.matching import Received
from edge.drain.replay.rules import TRUSTED
from edge.drain.rows import Touched
from edge.tracking.click_id import ms_of
from edge.tracking.verdict import TouchKind
from storage.journal.events import Conversion, Session
from storage.postgres.changes import Held
from storage.postgres.replays import uuid_of

Row = Mapping[str, Any]
NOBODY = UUID(int=0)
KEPT_REASONS = frozenset(
    ("forged_id", "unknown_click", "bad_token", "ip_not_allowed", "bad_signature", "replayed", "invalid_amount")
)
"""Refusals that hang on what is not stored."""

_OUR_EXTRAS = ("touch", "repeated", "amount_sent")
_COLUMNS = (
    *(f"adv_sub{number}" for number in range(1, 6)), "conversion_unique_id", "promo_code", "contact_id",
)  # fmt: skip


def is_kept(row: Row) -> bool:
    """Whether the decision stays as it was, whatever the rules: what it hung on is not stored."""
    reason = row["change_reason"]
    return reason in KEPT_REASONS or (reason == "unknown_goal" and "goal_name" not in row["extras"])


def received_of(row: Row) -> Received:
    """The conversion of a decision."""
    amount, note = row["change_amount_after"], row["extras"].get("amount_sent", "")
    amount = row["amount"] if amount is None else amount
    params = {name: value for name, value in row["extras"].items() if name not in _OUR_EXTRAS}
    params |= {name: row[name] for name in _COLUMNS if row[name]}
    if note or amount:
        params["amount"] = note.partition(" ")[0] or f"{amount:f}"
    conversion_id: UUID = row["conversion_id"]
    event = _event(row, conversion_id.bytes, row["catalog_revision"], _ms(row["received_at"]), row["via"], params)
    return Received(_told_when(event, row), b"", NOBODY, row["was_decided"])


def cause_of(row: Row, revision: int) -> Received:
    """The conversion that changed another instead of being one of its own: what it sent, at the other's place."""
    cause_id = row["change_cause_id"].bytes
    event = _event(row, cause_id, revision, ms_of(cause_id), "postback", dict(row["change_cause_params"]))
    return Received(event, b"", NOBODY)


def touched_of(row: Row, touch_revisions: Mapping[bytes, int]) -> Touched | None:
    """The touch that it is credited to, as it was; `touch_revisions`: of touches that are still stored."""
    if not row["aff_id"] and row["change_reason"] == "unknown_click":
        return None
    click_id = uuid_of(row["click_id"])
    session = Session(
        click_id,
        touch_revisions.get(click_id, row["catalog_revision"]),
        row["offer_id"],
        row["aff_id"],
        row["landing_page_id"],
        row["creative_id"],
        row["contact_id"],
        "",
        "",
    )
    kind = cast(TouchKind, row["extras"].get("touch", "click"))
    return Touched(session, row["country"], row["device_type"], kind, uuid_of(row["named_click_id"]))


def held_of(row: Row, reason: str, status_code: int) -> Held:
    """The conversion as its decision left it."""
    own = {
        "event_id": row["extras"].get("adv_unique1", ""),
        "status": row["change_status_after"],
        "reason": reason,
        "status_code": status_code,
        "amount": _after(row, "amount"),
        "payout": _after(row, "payout"),
        "revenue": _after(row, "revenue"),
        "booked_hour": row["decided_hour"],
    }
    return Held._make(own[name] if name in own else row[name] for name in Held._fields)


def revision_at(times: Sequence[tuple[datetime, int]], moment: datetime) -> int:
    """The catalog revision in force at that moment; 0 before the first."""
    place = bisect_right(times, moment, key=lambda one: one[0])
    return times[place - 1][1] if place else 0


def _event(row: Row, id_: bytes, revision: int, received_ms: int, via: Any, params: dict[str, str]) -> Conversion:
    params["security_token"] = TRUSTED
    click_id = uuid_of(row["named_click_id"] or row["click_id"])
    transaction_id = row["transaction_id"]
    is_external = bool(transaction_id) and not click_id
    return Conversion(
        id_, revision, received_ms, via, transaction_id, click_id, b"", row["offer_id"], row["goal_id"], params,
        "", "", "", is_external,
    )  # fmt: skip


def _told_when(event: Conversion, row: Row) -> Conversion:
    """Without its `datetime`, where that was not believed: it would be now."""
    if row["converted_at"] == row["received_at"]:
        event.params.pop("datetime", None)
    else:
        event.params["datetime"] = row["converted_at"].isoformat()
    return event


def _after(row: Row, name: str) -> Any:
    stored = row[f"change_{name}_after"]
    return row[name] if stored is None else stored


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
