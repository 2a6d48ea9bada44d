"""Who speaks how: the vendors' tables put together, and the row that a request is meant for.

A path that stands in a table is asked first, then the catalog's aliases, then the paths with parameters in them.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from edge.tracking.click import CORS, handle_click, handle_direct_click, handle_impression
from edge.tracking.conversion import handle_goal_postback, handle_pixel, handle_postback
from edge.tracking.redirects import HOP_PATH, handle_hop
from edge.tracking.replies import success
from edge.tracking.request import NOT_FOUND, Answer, Handled, Kind, Request, text
from edge.tracking.state import EdgeState
from edge.tracking.translation import translate
from edge.tracking.vendor_replies import reply_to
from edge.tracking.vendors import VENDORS
from edge.tracking.vendors.row import Row
from edge.tracking.vendors.tune import TUNE

Handler = Callable[[EdgeState, Request, str], Handled]


class _KindRow(NamedTuple):
    handle: Handler
    kind: Kind
    methods: frozenset[str]


_GET = frozenset(("GET",))
_GET_HEAD = frozenset(("GET", "HEAD"))
_GET_POST = frozenset(("GET", "POST"))
KINDS: dict[str, _KindRow] = {
    "click": _KindRow(handle_click, Kind.CLICK, _GET_HEAD),
    "direct_click": _KindRow(handle_direct_click, Kind.CLICK, _GET),
    "impression": _KindRow(handle_impression, Kind.IMPRESSION, _GET),
    "postback": _KindRow(handle_postback, Kind.POSTBACK, _GET_POST),
    "goal_postback": _KindRow(handle_goal_postback, Kind.POSTBACK, _GET_POST),
    "pixel": _KindRow(handle_pixel, Kind.PIXEL, _GET),
    "goal_pixel": _KindRow(handle_pixel, Kind.PIXEL, _GET),
    "hop": _KindRow(handle_hop, Kind.OTHER, _GET_HEAD),
}


class Entry(NamedTuple):
    """A row and whose it is; `pattern` is None where the path has no parameters."""

    vendor: str
    row: Row
    tells: tuple[tuple[str, str], ...]
    """Name and value; no value: it must be there."""
    pattern: re.Pattern[str] | None


class Match(NamedTuple):
    """The row that is meant, and what the path itself said."""

    entry: Entry
    in_path: Mapping[str, str]


def _compile(path: str) -> re.Pattern[str] | None:
    if "{" not in path:
        return None
    return re.compile(re.sub(r"\{([a-z]+)\}", r"(?P<\1>[A-Za-z0-9_-]{1,64})", path) + r"/?\Z")


def _enter(vendor: str, row: Row) -> Entry:
    tells = tuple((name, value) for name, _, value in (tell.partition("=") for tell in row.tells))
    return Entry(vendor, row, tells, _compile(row.path))


TABLE = tuple(_enter(vendor.name, row) for vendor in VENDORS for row in vendor.rows)
_PATTERNS = tuple(entry for entry in TABLE if entry.pattern is not None)
_BY_PATH: dict[str, list[Entry]] = {}
for _entry in TABLE:
    if _entry.pattern is None:
        _BY_PATH.setdefault(_entry.row.path, []).append(_entry)
# The second page of a redirect that hides the referrer: no vendor's request, so in no table.
_BY_PATH[HOP_PATH] = [_enter(TUNE.name, Row(HOP_PATH, "hop"))]
HOT_PATHS = frozenset(_BY_PATH)
"""Those that stand in a table; every alias is hot too, and what `is_pattern` says."""
# The native paths that need no telling: most requests are answered by their row without a search.
_PLAIN = {
    path: KINDS[entries[0].row.kind]
    for path, entries in _BY_PATH.items()
    if entries[0].vendor == TUNE.name and not entries[0].row.tells
}

RESERVED_PATHS = frozenset(path[1:] for path in _BY_PATH if path.count("/") == 1 and path != "/") | {
    "edge.js",
    "livez",
    "readyz",
}


def dispatch(state: EdgeState, request: Request) -> Handled:
    """The answer to `request`, and the event to journal before it leaves."""
    plain = _PLAIN.get(request.path)
    if plain is not None:
        handle, _, methods = plain
        if request.method in methods:
            return handle(state, request, "")
    if request.path not in _BY_PATH:
        return _by_alias(state, request)
    match = find_row(request)
    if match is None:
        return Handled(Kind.OTHER, "bad_request", _UNTOLD.get(request.path, NOT_FOUND))
    return _speak(state, request, match)


def _by_alias(state: EdgeState, request: Request) -> Handled:
    path = request.path[1:]
    alias = state.catalog.alias(path)
    if alias is not None:
        kind, frozen = alias
        translated = replace(request, params={**request.params, **frozen})
        return _handle(state, translated, KINDS[kind].methods, kind, path)
    match = find_pattern(request.path)
    return _speak(state, request, match) if match else Handled(Kind.OTHER, "bad_request", NOT_FOUND)


def find_row(request: Request) -> Match | None:
    """The row of a path without parameters; None: there is none, or none of them is meant."""
    params = request.params
    for entry in _BY_PATH.get(request.path, ()):
        for name, value in entry.tells:
            said = params.get(name)
            if said is None or (value and said != value):
                break
        else:
            return Match(entry, {})
    return None


def is_pattern(path: str) -> bool:
    """Whether `path` has the form of one with parameters."""
    return find_pattern(path) is not None


def find_pattern(path: str) -> Match | None:
    """The row of a path with parameters."""
    for entry in _PATTERNS:
        found = entry.pattern.match(path) if entry.pattern else None
        if found:
            return Match(entry, found.groupdict())
    return None


def _untold(entries: list[Entry]) -> Answer:
    wanted = dict.fromkeys(" and ".join(entry.row.tells) for entry in entries)
    return text(400, f"this path needs one of these parameters: {', '.join(wanted)}")


_UNTOLD = {path: _untold(entries) for path, entries in _BY_PATH.items() if path != "/"}
_PREFLIGHT = Answer(
    204,
    allow="OPTIONS, POST",
    extra=(
        *CORS,
        ("Access-Control-Allow-Methods", "POST"),
        ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
    ),
)


def _speak(state: EdgeState, request: Request, match: Match) -> Handled:
    """Handle a request in its vendor's words."""
    vendor, row = match.entry.vendor, match.entry.row
    methods = row.methods or KINDS[row.kind].methods
    if vendor == TUNE.name:
        return _handle(state, request, methods, row.kind, "")
    if row.is_cors and request.method == "OPTIONS":
        return Handled(Kind.OTHER, "recorded", _PREFLIGHT)
    translated = translate(vendor, row, request, match.in_path, state.catalog)
    if row.must_resolve and state.catalog.offer(translated.request.params.get("offer_id", "")) is None:
        return Handled(Kind.OTHER, "bad_request", NOT_FOUND)
    if translated.is_ignored and request.method in methods:
        handled = Handled(KINDS[row.kind].kind, "refused", success(as_json=False))
    else:
        handled = _handle(state, translated.request, methods, row.kind, translated.alias)
    if row.reply is None or handled.outcome in ("bad_request", "unavailable"):
        return handled
    return replace(handled, answer=reply_to(translated, handled, row.reply, state.catalog))


def _handle(state: EdgeState, request: Request, methods: frozenset[str], kind: str, alias: str) -> Handled:
    row = KINDS[kind]
    if request.method not in methods:
        answer = Answer(405, b"method not allowed\n", allow=", ".join(sorted(methods)))
        return Handled(row.kind, "bad_request", answer)
    return row.handle(state, request, alias)
