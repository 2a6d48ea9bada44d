"""The story of a transaction id: as entries in the order of time, or as the lines of `clickedge explain`."""

from typing import Literal

import msgspec
from aiohttp import web

from edge.admin.api.operation import READERS, Call, Operation
from edge.stories import find_with_caps
from edge.tracking.parameters import clean
from edge.tracking.story import tell
from edge.tracking.timeline import Entry, timeline


class StoryPath(msgspec.Struct):
    """Which one: ours, or another system's id of a click."""

    transaction_id: str


class StoryQuery(msgspec.Struct):
    """How to tell it."""

    format: Literal["json", "text"] = "json"


class Told(msgspec.Struct):
    """All that is stored of the id. `is_found`: anything is."""

    transaction_id: str
    is_found: bool
    timeline: list[Entry]


async def explain(call: Call) -> Told | web.Response:
    """The whole story; of an id that names nothing an empty one."""
    transaction_id = clean(call.path.transaction_id)
    async with call.backend.connection() as conn:
        click_id, story, caps = await find_with_caps(conn, transaction_id)
    if call.query.format == "text":
        lines = "\n".join(tell(transaction_id, click_id, story, caps))
        return web.Response(text=lines + "\n", headers={"Cache-Control": "no-store"})
    return Told(transaction_id, any(story), timeline(story, caps))


OPERATIONS = (
    Operation(
        "GET", "/explain/{transaction_id}", "explain", "What came with an id, what was decided, and why", explain, READERS,
        path_type=StoryPath, query_type=StoryQuery, answer_type=Told, media=("text/plain",),
    ),
)  # fmt: skip
