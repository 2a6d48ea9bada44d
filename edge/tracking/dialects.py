"""Who speaks how: a row per path (and telling parameter, where vendors share one), first match wins.

A row says what the request is and which methods it takes. An opaque alias is a row made by the catalog.
"""

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from edge.tracking.click import handle_click, handle_direct_click, handle_impression
from edge.tracking.conversion import handle_goal_postback, handle_pixel, handle_postback
from edge.tracking.request import NOT_FOUND, Answer, Handled, Kind, Request, text
from edge.tracking.state import EdgeState

Handler = Callable[[EdgeState, Request, str], Handled]


class Dialect(NamedTuple):
    """One kind of request under one path; `tell`: a parameter and the value that it must have."""

    path: str
    kind: str
    tell: tuple[str, str] | None = None


TABLE = (
    Dialect("/aff_c", "click"),
    Dialect("/aff_i", "impression"),
    Dialect("/aff_lsr", "postback"),
    Dialect("/aff_goal", "goal_postback", ("a", "lsr")),
    Dialect("/aff_goal", "goal_pixel", ("a", "l")),
    Dialect("/aff_l", "pixel"),
    Dialect("/clk", "direct_click"),
)


class _KindRow(NamedTuple):
    handle: Handler
    kind: Kind
    methods: frozenset[str]


_GET = frozenset(("GET",))
KINDS: dict[str, _KindRow] = {
    "click": _KindRow(handle_click, Kind.CLICK, frozenset(("GET", "HEAD"))),
    "direct_click": _KindRow(handle_direct_click, Kind.CLICK, _GET),
    "impression": _KindRow(handle_impression, Kind.IMPRESSION, _GET),
    "postback": _KindRow(handle_postback, Kind.POSTBACK, frozenset(("GET", "POST"))),
    "goal_postback": _KindRow(handle_goal_postback, Kind.POSTBACK, frozenset(("GET", "POST"))),
    "pixel": _KindRow(handle_pixel, Kind.PIXEL, _GET),
    "goal_pixel": _KindRow(handle_pixel, Kind.PIXEL, _GET),
}

_BY_PATH: dict[str, list[Dialect]] = {}
for _row in TABLE:
    _BY_PATH.setdefault(_row.path, []).append(_row)
HOT_PATHS = frozenset(_BY_PATH)
"""Those of the dialects; every alias is hot too."""
# The paths that need no telling: most requests are answered by their row without a search.
_PLAIN = {path: KINDS[rows[0].kind] for path, rows in _BY_PATH.items() if rows[0].tell is None}

RESERVED_PATHS = frozenset(path.strip("/") for path in _BY_PATH) | {"edge.js", "livez", "readyz"}
UNTOLD = text(400, "the parameter a must be lsr or l")


def dispatch(state: EdgeState, request: Request) -> Handled:
    """The answer to `request`, and the event to journal before it leaves."""
    plain = _PLAIN.get(request.path)
    if plain is not None:
        handle, _, methods = plain
        if request.method in methods:
            return handle(state, request, "")
    rows = _BY_PATH.get(request.path)
    if rows is None:
        return _by_alias(state, request)
    for row in rows:
        if row.tell is None or request.params.get(row.tell[0]) == row.tell[1]:
            return _handle(state, request, row.kind, "")
    return Handled(Kind.OTHER, "bad_request", UNTOLD)


def _by_alias(state: EdgeState, request: Request) -> Handled:
    path = request.path[1:]
    alias = state.catalog.alias(path)
    if alias is None:
        return Handled(Kind.OTHER, "bad_request", NOT_FOUND)
    kind, frozen = alias
    return _handle(state, replace(request, params={**request.params, **frozen}), kind, path)


def _handle(state: EdgeState, request: Request, kind: str, alias: str) -> Handled:
    row = KINDS[kind]
    if request.method not in row.methods:
        allow = ", ".join(sorted(row.methods))
        answer = Answer(405, b"method not allowed\n", allow=allow)
        return Handled(row.kind, "bad_request", answer)
    return row.handle(state, request, alias)
