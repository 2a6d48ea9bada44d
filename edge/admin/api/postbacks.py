"""Partners' postbacks: what was told, with which answer; telling it once more; trying an advertiser's postback."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from edge.admin.api.operation import ADMIN, READERS, Call, Operation
from edge.admin.api.problems import bad_fields, not_found
from edge.admin.postback_trial import Tried, read_address, read_target, try_postback
from edge.admin.sight import shown
from edge.errors import UserError
from edge.replaying import replay
from edge.tracking.postbacks import without_secrets
from storage.postgres.postback_pages import PostbackFilter, find_one, list_page

_Row = dict[str, Any]
_Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Small = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class PostbackPath(msgspec.Struct):
    """Which one."""

    id: _Id


class PostbackQuery(msgspec.Struct):
    """Which ones: the newest first. `failing`: given up, or tried in vain and still pending."""

    state: list[Literal["pending", "delivered", "dead", "replayed"]] = []
    partner: list[_Small] = []
    offer: list[_Small] = []
    conversion_id: UUID | None = None
    since: _Moment | None = None
    until: _Moment | None = None
    failing: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    cursor: Annotated[str, msgspec.Meta(pattern="^[0-9]{0,18}$")] = ""


class PostbackPage(msgspec.Struct):
    """Postbacks, each with its last attempt; and where the list goes on."""

    data: list[_Row]
    next_cursor: str | None


class Replayed(msgspec.Struct):
    """How many postbacks were queued anew for its conversion."""

    conversions: int
    postbacks: int


class PostbackTest(msgspec.Struct, forbid_unknown_fields=True):
    """`url` as the advertiser calls it, of whatever host; `data`: the body, if it is a POST."""

    url: str
    data: str | None = None
    authorization: str = ""
    from_ip: str = "127.0.0.1"


async def list_postbacks(call: Call) -> PostbackPage:
    """A page of them."""
    query = call.query
    early = [name for name in ("since", "until") if not _is_storable(getattr(query, name))]
    if early:
        raise bad_fields((name, "allowed are the years 1970 to 9998") for name in early)
    wanted = PostbackFilter(
        query.state, query.partner, query.offer, query.conversion_id, query.since, query.until, query.failing
    )
    before = int(query.cursor) if query.cursor else None
    async with call.backend.connection() as conn:
        rows = await list_page(conn, wanted, query.limit + 1, before)
    more = len(rows) > query.limit
    page = rows[: query.limit]
    return PostbackPage([as_shown(row) for row in page], str(page[-1]["outbox_id"]) if more else None)


async def read(call: Call) -> _Row:
    """One with all of its attempts."""
    async with call.backend.connection() as conn:
        row = await find_one(conn, call.path.id)
    if row is None:
        raise not_found("postback")
    return as_shown(row)


async def replay_one(call: Call) -> Replayed:
    """Tell its partner the conversion's present state once more, by the addresses that the catalog has now."""
    async with call.backend.connection() as conn:
        row = await find_one(conn, call.path.id)
        if row is None:
            raise not_found("postback")
        done = await replay(conn, ids=[row["conversion_id"]], actor=f"replay by {call.caller.name}")
    return Replayed(*done)


async def try_one(call: Call) -> Tried:
    """What it would come to; nothing is recorded."""
    body: PostbackTest = call.body
    if "{" in body.url:
        raise bad_fields([("/url", "this is a partner's, with macros: `clickedge postback-test` sends it a sample")])
    _check("/url", read_target, body.url)
    _check("/from_ip", read_address, body.from_ip)
    try:
        async with call.backend.connection() as conn:
            tried = await try_postback(
                conn, call.backend.settings, body.url, body.data, body.authorization, body.from_ip
            )
    except UserError as error:
        raise bad_fields([("/data", str(error))]) from error
    row = tried.conversion
    return msgspec.structs.replace(tried, conversion=shown(row, call.caller.scope)) if row else tried


def _check(field: str, read: Callable[[str], object], value: str) -> None:
    try:
        read(value)
    except UserError as error:
        raise bad_fields([(field, str(error))]) from error


def _is_storable(moment: datetime | None) -> bool:
    return moment is None or 1970 <= moment.year <= 9998


def as_shown(row: _Row) -> _Row:
    """Without the secrets that an operator wrote into the address; what was sent has them hidden already."""
    sent = row.pop("url_sent", None)
    return {**row, "url": sent or without_secrets(row["url"])}


OPERATIONS = (
    Operation(
        "GET", "/postbacks", "postbacks", "What partners were told, or are to be told", list_postbacks, READERS,
        query_type=PostbackQuery, answer_type=PostbackPage,
    ),
    Operation(
        "GET", "/postbacks/{id}", "postback", "A partner's postback with all attempts", read, READERS,
        path_type=PostbackPath, answer_type=_Row,
    ),
    Operation(
        "POST", "/postbacks/{id}/replay", "replay_postback", "Tell partners of its conversion once more", replay_one, ADMIN,
        path_type=PostbackPath, answer_type=Replayed, commits=True,
    ),
    Operation(
        "POST", "/postback-tests", "try_postback", "What an advertiser's postback would come to; nothing is recorded",
        try_one, ADMIN, body_type=PostbackTest, answer_type=Tried,
    ),
)  # fmt: skip
