"""Saved reports: kept under a name, for oneself or for everybody in the network, with fixed dates or a period that moves."""

from datetime import UTC, date, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl

from aiohttp import web

from edge.admin.console.page import Refusal, Route, Visit, not_found
from edge.admin.console.reports.asking import MAX_QUERY_CHARS, Asked, read_visit, refuse_foreign, see_other, zone_of
from edge.admin.console.reports.urls import PRESETS, Pairs, canonical, days_of, preset_of, replaced, to_url, without
from storage.postgres.connection import Connection
from storage.postgres.reports.query import NotYours, QueryRefused, parse_query
from storage.postgres.saved_reports import (
    MAX_NAME_CHARS,
    NameTaken,
    SavedReport,
    TooMany,
    delete_report,
    find_report,
    list_reports,
    rename_report,
    save_report,
)

_MAX_ID = 2**31 - 1


class Beside(NamedTuple):
    """What the report's page says of saved ones. `here`: the own one that this report is; `preset`: how its dates can move."""

    reports: list[SavedReport]
    here: SavedReport | None
    preset: str
    preset_label: str


async def beside(visit: Visit, conn: Connection, asked: Asked) -> Beside:
    """All that may be opened, and whether this report is one of them."""
    reports = await list_reports(conn, visit.caller.key_id, with_shared=visit.is_network)
    mine = [one for one in reports if one.key_id == visit.caller.key_id]
    pairs = without(asked.pairs, "cursor")
    here = next((one for one in mine if set(opened(one, asked.today)) == set(_dated(pairs, asked.today))), None)
    preset = preset_of(pairs, asked.today)
    return Beside(reports, here, preset, PRESETS.get(preset, ""))


def opened(saved: SavedReport, today: date) -> Pairs:
    """Its parameters as of a day, which is today where its time zone is."""
    pairs = parse_qsl(saved.query, keep_blank_values=True)
    return _dated(replaced(pairs, **_days(saved.moving, today)) if saved.moving in PRESETS else pairs, today)


def _dated(pairs: Pairs, today: date) -> Pairs:
    """With its dates: none are the last seven days."""
    bare = not {"from", "to"} & {name for name, _ in pairs}
    return canonical(replaced(pairs, **_days("7d", today)) if bare else pairs, today)


def _days(preset: str, today: date) -> dict[str, str]:
    return dict(zip(("from_", "to"), map(str, days_of(preset, today)), strict=True))


async def show_list(visit: Visit, fault: str = "", fault_id: int = 0) -> web.Response:
    """The saved reports, each with what can be done to it."""
    async with visit.connection() as conn:
        reports = await list_reports(conn, visit.caller.key_id, with_shared=visit.is_network)
    return visit.render(
        "reports_saved.html",
        status=422 if fault else 200,
        own=[one for one in reports if one.key_id == visit.caller.key_id],
        shared=[one for one in reports if one.key_id != visit.caller.key_id],
        presets=PRESETS,
        fault=fault,
        fault_id=fault_id,
        words=_in_words,
    )


async def open_one(visit: Visit) -> web.Response:
    """To its report, a moving period as of today."""
    async with visit.connection() as conn:
        found = await find_report(conn, _id(visit), visit.caller.key_id, with_shared=visit.is_network)
    if found is None:
        raise not_found("saved report")
    return see_other(to_url(opened(found, _today(visit, parse_qsl(found.query), datetime.now(UTC)))))


async def keep(visit: Visit) -> web.Response:
    """Keep the report that the form's page shows."""
    asked = read_visit(visit)
    said = parse_qsl(_said(visit, "query"), keep_blank_values=True)
    today = _today(visit, said, asked.now)
    pairs = without(canonical(said, today), "cursor")
    _check(visit, asked, pairs)
    name, fault = _name(visit)
    if fault:
        raise Refusal(422, "The report was not saved", fault)
    moving = preset_of(pairs, today) if _said(visit, "moving") else ""
    kept = without(pairs, "from", "to") if moving else _dated(pairs, today)
    query = to_url(kept, "").removeprefix("?")
    shared = visit.is_network and bool(_said(visit, "shared"))
    try:
        async with visit.connection() as conn:
            await save_report(conn, visit.caller.key_id, name, query, moving, is_shared=shared)
    except TooMany as error:
        raise Refusal(422, "The report was not saved", str(error)) from error
    return see_other(to_url(pairs))


async def rename(visit: Visit) -> web.Response:
    """Another name; shared or not."""
    report_id = _id(visit)
    name, fault = _name(visit)
    if not fault:
        shared = visit.is_network and bool(_said(visit, "shared"))
        try:
            async with visit.connection() as conn:
                if not await rename_report(conn, report_id, visit.caller.key_id, name, is_shared=shared):
                    raise not_found("saved report")
        except NameTaken as error:
            fault = str(error)
    return await show_list(visit, fault, report_id) if fault else see_other("/reports/saved")


async def forget(visit: Visit) -> web.Response:
    """Delete one's own."""
    async with visit.connection() as conn:
        if not await delete_report(conn, _id(visit), visit.caller.key_id):
            raise not_found("saved report")
    return see_other("/reports/saved")


def _check(visit: Visit, asked: Asked, pairs: Pairs) -> None:
    """Only what can be shown is kept."""
    if len(to_url(pairs)) > MAX_QUERY_CHARS:
        raise Refusal(422, "The report was not saved", "It has too many filters.")
    try:
        parse_query(pairs, asked.viewer, asked.now, asked.timezone)
    except NotYours as error:
        refuse_foreign(error)
    except QueryRefused as error:
        raise Refusal(422, "The report was not saved", str(error)) from error


def _today(visit: Visit, pairs: Pairs, now: datetime) -> date:
    """The day that it is in the report's time zone."""
    return now.astimezone(zone_of(dict(pairs).get("timezone", ""), visit.shared.zone.key)).date()


def _name(visit: Visit) -> tuple[str, str]:
    """The name that was typed, and what is wrong with it."""
    name = " ".join(_said(visit, "name").replace("\0", "").split())
    if not name:
        return name, "it needs a name"
    return name, f"the name has more than {MAX_NAME_CHARS} letters" if len(name) > MAX_NAME_CHARS else ""


def _said(visit: Visit, field: str) -> str:
    value = visit.form.get(field, "")
    return value if isinstance(value, str) else ""


def _id(visit: Visit) -> int:
    text = visit.request.match_info["id"]
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= _MAX_ID):
        raise not_found("saved report")
    return int(text)


def _in_words(saved: SavedReport) -> str:
    """What it shows: dimensions, metrics and filters."""
    said = parse_qsl(saved.query, keep_blank_values=True)
    words = [f"by {text.replace(',', ', ')}" for name, text in said if name == "dimensions"]
    dates = " to ".join(text for name, text in said if name in ("from", "to"))
    words.append(PRESETS.get(saved.moving, dates))
    words += [f"{name}: {text or 'none'}" for name, text in said if name not in ("dimensions", "metrics", "from", "to")]
    return " · ".join(word for word in words if word)


ROUTES = (
    Route("GET", "/reports/saved", show_list),
    Route("POST", "/reports/saved", keep),
    Route("GET", "/reports/saved/{id}", open_one),
    Route("POST", "/reports/saved/{id}/rename", rename),
    Route("POST", "/reports/saved/{id}/delete", forget),
)
