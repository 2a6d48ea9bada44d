"""What an advertiser's postback would come to: its address read, judged as it would be now, and nothing recorded."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from edge.drain.rehearsal import Rehearsed, rehearse
from edge.errors import UserError
from edge.http.routes import add_fields
from edge.node import with_secrets
from edge.postback_preview import preview
from edge.settings import Settings
from edge.tracking.headers import Headers
from edge.tracking.parameters import parse_query
from edge.tracking.story import tell_conversion
from storage.postgres.connection import Connection

_ORIGIN_END = "://"
_SHOWN_BYTES = 500


class Tried(msgspec.Struct, frozen=True):
    """What would happen. `conversion`: the row that there would be, or the earlier one as it would be changed."""

    answer_status: int
    answer_body: str
    is_conversion: bool
    """Whether it is read as one at all; if not, the answer says why."""
    parameters: dict[str, str] = {}
    is_change: bool = False
    status: str = ""
    reason: str = ""
    waits_until: Any = None
    conversion: dict[str, Any] | None = None
    told: list[str] = []
    """The conversion in words, as `explain` tells it."""
    postbacks: list[dict[str, Any]] = []
    """Which partners would hear what: aff_id, method, url."""


def read_target(url: str) -> tuple[str, dict[str, str]]:
    """Path and parameters. The host does not matter: whoever calls it has it from somewhere."""
    _, found, rest = url.partition(_ORIGIN_END)
    target = url if not found else "/" + rest.partition("/")[2]
    path, _, query = target.partition("#")[0].partition("?")
    if not path.startswith("/"):
        raise UserError(f"{url[:80]!a} is no postback's address: write it as the advertiser calls it, or /aff_lsr?…")
    return path, parse_query(query)


def read_address(text: str) -> str:
    """The sender's address."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise UserError(f"{text[:64]!a} is no address") from error


async def try_postback(
    conn: Connection, settings: Settings, url: str, data: str | None, authorization: str, from_ip: str
) -> Rehearsed:
    """What this request would come to now. `data`: the body of a POST, a form or a flat JSON object."""
    path, params = read_target(url)
    if data and (refusal := add_fields(params, data.encode(), is_json=data.lstrip().startswith("{"))):
        raise UserError(refusal.body.decode().strip())
    headers = Headers(user_agent="clickedge postback-test", authorization=authorization)
    method = "GET" if data is None else "POST"
    return await rehearse(conn, with_secrets(settings), method, path, params, headers, read_address(from_ip))


def describe(rehearsed: Rehearsed) -> Tried:
    """The same as values."""
    answer, event, row = rehearsed.handled.answer, rehearsed.event, rehearsed.conversion
    body = answer.body.decode("ascii", "replace").strip()[:_SHOWN_BYTES]
    if event is None:
        return Tried(answer.status, body, is_conversion=False)
    return Tried(
        answer.status,
        body,
        is_conversion=True,
        parameters={name: value for name, value in sorted(event.params.items()) if name != "security_token"},
        is_change=rehearsed.is_change,
        status=row["status"] if row else "",
        reason=row["reason"] if row else "",
        waits_until=rehearsed.waits_until,
        conversion=row,
        told=list(tell_conversion("conversion", row, rehearsed.changes)) if row else [],
        postbacks=list(_postbacks(rehearsed)),
    )


def _postbacks(rehearsed: Rehearsed) -> Sequence[dict[str, Any]]:
    facts = rehearsed.facts
    if facts is None:
        return []
    return [
        {"aff_id": row.aff_id, "method": row.method, "url": preview(row, facts, rehearsed.catalog)}
        for row in rehearsed.postbacks
    ]


