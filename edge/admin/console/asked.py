"""What a list is asked for in its URL: tidied, told as removable parts, and its faults by field."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from aiohttp import web

from edge.admin.console.page import Visit
from storage.postgres.reports.query import Fault

Pairs = Sequence[tuple[str, str]]
FORM = "form"
"""Of a query that the page's own form sent: there a field left empty asks for nothing, elsewhere it asks for none."""


class Part(NamedTuple):
    """One thing that is asked for, in words, and the list's address without it."""

    label: str
    text: str
    without: str


def tidy(visit: Visit, path: str) -> web.Response | None:
    """Where the same is asked for without the form's empty fields; None: it is written so already."""
    pairs = list(visit.request.query.items())
    if (FORM, "1") not in pairs:
        return None
    return web.Response(
        status=303, headers={"Location": address(path, [one for one in pairs if one[0] != FORM and one[1].strip()])}
    )


def address(path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The path with that query."""
    query = urlencode(list(pairs))
    return f"{path}?{query}" if query else path


def pairs_of(visit: Visit, *, but: Collection[str] = ()) -> list[tuple[str, str]]:
    """Names and values of the query, without spaces around them."""
    return [(name, value.strip()) for name, value in visit.request.query.items() if name not in but]


def parts_of(path: str, pairs: Pairs, word: Callable[[str, str], tuple[str, str] | None]) -> list[Part]:
    """Everything that is asked for but what `word` (label and text of a name and value) is silent about."""
    found = []
    for place, (name, value) in enumerate(pairs):
        if said := word(name, value):
            rest = [one for other, one in enumerate(pairs) if other != place]
            found.append(Part(*said, address(path, rest)))
    return found


def by_field(faults: Iterable[Fault]) -> dict[str, str]:
    """The first fault of each field."""
    found: dict[str, str] = {}
    for fault in faults:
        found.setdefault(fault.field, fault.text)
    return found
