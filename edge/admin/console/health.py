"""Health: are the processes up, how far behind are they, what went wrong."""

from collections.abc import Iterator
from typing import NamedTuple

from aiohttp import web

from edge.admin.api.operation import READERS
from edge.admin.console import formats
from edge.admin.console.page import Page, Route, Visit
from edge.admin.health import LAG_S, POSTBACK_AGE_S, Health, check_health

FULL_SHARE = 0.8
_ERRORS = {
    "journal_writes": "Journal writes that failed",
    "drain_transactions": "Drain transactions tried again",
    "catalogs": "Catalogs that could not be taken",
    "forged_ids": "Forged ids",
}


class Reading(NamedTuple):
    """One figure. `tone`: good, wait or bad."""

    label: str
    value: str
    tone: str
    note: str


async def show(visit: Visit) -> web.Response:
    """The page, or its readings alone."""
    health = await check_health(visit.shared.backend)
    return visit.render(
        "health_readings.html" if visit.is_fragment else "health.html",
        readings=[*_of_processes(health), *_of_database(health)],
        health=health,
        errors=[(label, health.errors[name]) for name, label in _ERRORS.items()],
    )


def _of_processes(health: Health) -> Iterator[Reading]:
    down = [f"{one.role} {one.slot}" for one in health.processes if not one.is_up]
    backlog, room = health.journal_backlog_bytes, health.journal_max_bytes
    yield Reading("Processes", f"{len(down)} down" if down else "all up", "bad" if down else "good", ", ".join(down))
    late = health.drain_lag_s > LAG_S
    yield Reading("Drain", formats.duration(health.drain_lag_s), "bad" if late else "good", "how far the figures are behind")
    tone = "bad" if backlog > room * FULL_SHARE else "good"
    yield Reading("Journal not yet stored", formats.size(backlog), tone, f"of {formats.size(room)} that it may hold")
    dropped = health.events_dropped
    yield Reading("Events dropped", f"{dropped:,}", "bad" if dropped else "good", "while the journal was full")
    since_s = health.caps_compared_s
    said = "not yet" if since_s is None else f"{formats.duration(since_s)} ago"
    is_fresh = since_s is not None and since_s < LAG_S
    yield Reading("Caps compared", said, "good" if is_fresh else "bad", "each second, when all is well")


def _of_database(health: Health) -> Iterator[Reading]:
    if not health.is_database_reachable:
        yield Reading("Database", "away", "bad", "it does not answer; redirects go on, and what comes in waits in the journal")
        return
    quarantined, waiting = health.quarantined or 0, health.conversions_waiting or 0
    yield Reading("Quarantine", f"{quarantined:,}", "bad" if quarantined else "good", "records that could not be stored")
    yield Reading("Conversions waiting", f"{waiting:,}", "wait" if waiting else "good", "for their click")
    pending, oldest_s = health.postbacks_pending or 0, health.postbacks_oldest_s or 0.0
    note = f"the oldest for {formats.duration(oldest_s)}" if pending else "none waits"
    yield Reading("Postbacks pending", f"{pending:,}", "bad" if oldest_s > POSTBACK_AGE_S else "good", note)
    dead = health.postbacks_dead or 0
    yield Reading("Postbacks given up", f"{dead:,}", "wait" if dead else "good", "see the log of postbacks")


PAGE = Page(
    path="/health",
    title="Health",
    group="System",
    icon="health",
    letter="h",
    scopes=READERS,
    routes=(Route("GET", "/health", show),),
)
