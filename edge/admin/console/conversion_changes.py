"""Conversions approved, rejected, reversed or adjusted, one or many: shown with the money first, then done, each by itself."""

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from aiohttp import web

from edge.admin.console.names import Names
from edge.admin.console.page import Refusal, Visit
from edge.admin.console.reasons import REASONS, in_words
from edge.admin.decision_preview import Foreseen, effects_of, foresee_each
from edge.admin.decisions import Decision, decide_each, faults_in
from edge.tracking.changes import CHANGE_REASONS, TRANSITIONS
from storage.postgres.stories import find_conversions

Action = Literal["approve", "reject", "reverse", "adjust"]
ACTIONS: dict[str, tuple[str, str]] = {
    "approve": ("approved", "Approve"),
    "reject": ("rejected", "Reject"),
    "reverse": ("reversed", "Reverse"),
    "adjust": ("", "Adjust"),
}
"""The status that each leads to, and its verb."""
MAX_CHANGED = 200
MONEY = ("amount", "payout", "revenue")
_TWO_AMOUNTS = re.compile(r"-?\d{1,3},\d{3}")
"""1,234 is 1234 to some and 1.234 to others."""
_LIST = "/conversions"


class Asked(NamedTuple):
    """What the form asks for. `texts`: its fields as they were typed; `back`: the list that one came from."""

    action: str
    ids: list[UUID]
    texts: dict[str, str]
    back: str


def allowed(status: str) -> list[str]:
    """What can be done with a conversion of that status."""
    found = [name for name, (leads_to, _) in ACTIONS.items() if leads_to in TRANSITIONS[status]]
    return found + (["adjust"] if status in ("approved", "pending") else [])


async def review(visit: Visit) -> web.Response:
    """What would change, and the money; the fields that are still needed."""
    asked = _read(visit)
    decision, faults = _decide(asked)
    is_asked = asked.texts["asked"] == "1"
    return await _show(visit, asked, decision, faults if is_asked else {})


async def change(visit: Visit) -> web.Response:
    """Do it, each by itself, and tell what became of each; a sum that was not shown yet is shown first."""
    asked = _read(visit)
    decision, faults = _decide(asked)
    if faults or decision is None:
        return await _show(visit, asked, decision, faults, status=422)
    if asked.texts["seen"] != _seen(asked):
        return await _show(visit, asked, decision, {})
    async with visit.connection() as conn:
        decided = await decide_each(conn, asked.ids, decision, visit.caller.name)
        rows = {row["conversion_id"]: row for row in await find_conversions(conn, asked.ids)}
        names = Names(await visit.shared.catalog.current(conn))
    refused = [one for one in decided if one.problem]
    return visit.render(
        "conversions_changed.html",
        became=ACTIONS[asked.action][0] or "adjusted",
        done=[one for one in decided if not one.problem],
        refused=refused,
        rows=rows,
        names=names,
        back=asked.back,
        in_words=in_words,
    )


async def _show(
    visit: Visit, asked: Asked, decision: Decision | None, faults: dict[str, str], status: int = 200
) -> web.Response:
    foreseen: list[Foreseen] = []
    async with visit.connection() as conn:
        if decision is not None:
            foreseen = await foresee_each(conn, asked.ids, decision)
        else:
            rows = {row["conversion_id"]: row for row in await find_conversions(conn, asked.ids)}
            foreseen = [Foreseen(one, rows.get(one), None, "") for one in asked.ids]
        names = Names(await visit.shared.catalog.current(conn))
    return visit.render(
        "conversions_review.html",
        status=status,
        action=asked.action,
        verb=ACTIONS[asked.action][1],
        texts=asked.texts,
        faults=faults,
        foreseen=foreseen,
        possible=sum(one.after is not None for one in foreseen),
        effects=effects_of(foreseen),
        is_shown=decision is not None,
        seen=_seen(asked),
        back=asked.back,
        reasons={name: REASONS[name] for name in CHANGE_REASONS},
        names=names,
        in_words=in_words,
    )


def _read(visit: Visit) -> Asked:
    form = visit.form
    action = str(form.get("action", ""))
    if action not in get_args(Action):
        raise Refusal(422, "Nothing was asked for", "Pick approve, reject, reverse or adjust.")
    ids = form.getall("shown" if form.get("all") else "id", [])
    if not ids:
        raise Refusal(422, "No conversion is selected", "Go back, and tick those that are meant.")
    if len(ids) > MAX_CHANGED:
        raise Refusal(422, f"These are more than {MAX_CHANGED} conversions", "Select fewer at a time.")
    texts = {name: str(form.get(name, "")).strip() for name in (*MONEY, "reason", "note", "seen", "asked")}
    back = str(form.get("back", ""))
    is_ours = back == _LIST or back.startswith((f"{_LIST}?", f"{_LIST}/"))
    return Asked(action, list(dict.fromkeys(_uuids(ids))), texts, back if is_ours else _LIST)


def _uuids(texts: Iterable[Any]) -> Iterable[UUID]:
    for text in texts:
        try:
            yield UUID(str(text))
        except ValueError as error:
            raise Refusal(422, "This is no conversion's id", str(text)[:64]) from error


def _decide(asked: Asked) -> tuple[Decision | None, dict[str, str]]:
    """The decision, and what is wrong by field; None: what would become of them cannot be told yet."""
    faults: dict[str, str] = {}
    money: dict[str, Decimal] = {}
    if asked.action in ("approve", "adjust"):
        for name in MONEY:
            text = asked.texts[name]
            if _TWO_AMOUNTS.fullmatch(text):
                faults[name] = "this could be two amounts: write it like 1234.00"
            elif text:
                try:
                    money[name] = Decimal(text.replace(",", "."))
                except InvalidOperation:
                    faults[name] = "this is no amount: write it like 12.50"
    reason = asked.texts["reason"]
    if reason and reason not in CHANGE_REASONS:
        faults["reason"], reason = "pick one of these", ""
    status = ACTIONS[asked.action][0]
    decision = Decision(status, reason, asked.texts["note"], **money)  # type: ignore[arg-type]
    for field, text in faults_in(decision):
        faults.setdefault("amount" if field == "status" else field, _FAULTS.get(field, text))
    return (None if any(name in faults for name in MONEY) else decision), faults


_FAULTS = {"status": "write at least one of the three amounts", "reason": "pick why"}


def _seen(asked: Asked) -> str:
    """The sums that the page shows: what is confirmed must be what was seen."""
    return "|".join(asked.texts[name] for name in MONEY)
