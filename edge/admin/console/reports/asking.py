"""What a visit asks of the reports: its parameters read for whoever looks, and the names of what they mean."""

from datetime import UTC, date, datetime
from typing import Any, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

from aiohttp import web

from edge.admin.api.reports import viewer_of
from edge.admin.console.catalog_list import visible
from edge.admin.console.page import Refusal, Visit, not_found
from edge.admin.console.reports.urls import Pairs, canonical, names_of, without
from storage.postgres.connection import Connection
from storage.postgres.reports.metrics import DEFAULT_METRICS, METRICS
from storage.postgres.reports.periods import known_zones
from storage.postgres.reports.query import NotYours
from storage.postgres.reports.viewer import Viewer

MAX_QUERY_CHARS = 8000
MAX_LABELLED = 2000
_KINDS: Any = {"offer": "offers", "partner": "partners", "advertiser": "advertisers"}


class Asked(NamedTuple):
    """`pairs`: the canonical parameters; `timezone`: where they name none."""

    pairs: Pairs
    viewer: Viewer
    now: datetime
    timezone: str
    today: date


def read_visit(visit: Visit) -> Asked:
    """What is asked for, in the words of the API."""
    given = list(visit.request.query.items())
    now = datetime.now(UTC)
    timezone = visit.shared.zone.key
    today = now.astimezone(zone_of(dict(given).get("timezone", ""), timezone)).date()
    viewer, pairs = viewer_of(visit.caller), canonical(given, today)
    if [name for name, _ in given].count("metrics") > 1 and is_usual(names_of(pairs, "metrics"), viewer):
        pairs = without(pairs, "metrics")  # a form says all that is checked
    return Asked(pairs, viewer, now, timezone, today)


def is_usual(metrics: list[str], viewer: Viewer) -> bool:
    """Whether these are the metrics of a report that names none."""
    return set(metrics) == {name for name in DEFAULT_METRICS if viewer.scope in METRICS[name].scopes}


def zone_of(name: str, default: str) -> ZoneInfo:
    """The zone of that name; the default's where there is none such."""
    return ZoneInfo(name if name in known_zones() else default)


async def known_names(visit: Visit, conn: Connection) -> dict[str, dict[str, str]]:
    """Names by dimension and id, of what whoever looks may see."""
    catalog = await visit.shared.catalog.current(conn)
    known = {
        name: {str(one.id): one.name for one in visible(visit, catalog, kind)} for name, kind in _KINDS.items()
    }
    for name, own in viewer_of(visit.caller).own_rows.items():
        item = catalog.partner(own) if name == "partner" else catalog.advertiser(own)
        known[name] = {str(own): item.name} if item else {}
    return known


def refuse_foreign(error: NotYours) -> NoReturn:
    """What is somebody else's is not there."""
    raise not_found(error.dimension) from error


def check_length(visit: Visit) -> None:
    """Refusal for more parameters than a URL that can be shared has."""
    if len(visit.request.query_string) > MAX_QUERY_CHARS:
        raise Refusal(414, "That is too much to ask for at once", "Take some of the filters away.")


def see_other(location: str) -> web.Response:
    """Where to go instead."""
    return web.Response(status=303, headers={"Location": location})
