"""Trying a postback: what an advertiser's would come to, and how a partner answers a sample. Nothing is recorded."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_address
from typing import Any
from uuid import UUID, uuid4

import msgspec

from edge.drain.rehearsal import Rehearsed, rehearse
from edge.errors import UserError
from edge.http.routes import add_fields
from edge.node import with_secrets
from edge.sender.delivery import compose, deliver, open_client
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from edge.tracking.headers import Headers
from edge.tracking.parameters import parse_query
from edge.tracking.postback_values import Facts
from edge.tracking.postbacks import without_secrets
from edge.tracking.story import tell_conversion
from edge.tracking.urls import fault_in_url
from storage.postgres.connection import Connection
from storage.postgres.outbox import Attempt, Due, OutboxRow
from storage.postgres.postback_facts import PostbackFacts

_ORIGIN_END = "://"
_SHOWN_BYTES = 500
# Whatever a partner's macros may ask for: nothing that could be taken for a real conversion.
_SAMPLE_CONVERSION = {"adv_sub1": "sample-order", "goal_id": 0, "converted_at": None, "ip": "192.0.2.1", "extras": {}}
_SAMPLE_CLICK = {
    **{f"aff_sub{number}": f"sample-sub{number}" for number in range(1, 6)},
    "aff_click_id": "sample-click",
    "source": "sample-source",
    "country": "US",
    "extras": {},
}


class Told(msgspec.Struct, frozen=True):
    """A partner that would be told, and its address with the macros filled in, secrets hidden."""

    aff_id: int
    method: str
    url: str


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
    waits_until: datetime | None = None
    """Its click is not stored (yet): it would wait for it."""
    conversion: dict[str, Any] | None = None
    told: list[str] = []
    """The conversion in words, as `explain` tells it."""
    postbacks: list[Told] = []


async def try_postback(
    conn: Connection, settings: Settings, url: str, data: str | None, authorization: str, from_ip: str
) -> Tried:
    """What this postback would come to now. `data`: the body of a POST; UserError for what is no postback's address."""
    path, params = read_target(url, data)
    headers = Headers(user_agent="clickedge postback-test", authorization=authorization)
    method = "GET" if data is None else "POST"
    sender = read_address(from_ip)
    return _describe(await rehearse(conn, with_secrets(settings), method, path, params, headers, sender))


def _describe(rehearsed: Rehearsed) -> Tried:
    answer, event, row = rehearsed.handled.answer, rehearsed.event, rehearsed.conversion
    body = answer.body.decode("ascii", "replace").strip()[:_SHOWN_BYTES]
    if event is None:
        return Tried(answer.status, body, is_conversion=False)
    title = "it would change the conversion to" if rehearsed.is_change else "it would be stored as"
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
        told=list(tell_conversion(title, row, rehearsed.changes)) if row else [],
        postbacks=[_preview(one, rehearsed.facts, rehearsed.catalog) for one in rehearsed.postbacks] if rehearsed.facts else [],
    )


def _preview(row: OutboxRow, facts: PostbackFacts, catalog: Catalog) -> Told:
    due = _due(row.url, row.method, facts.conversion["conversion_id"], row.status)._replace(
        aff_id=row.aff_id,
        offer_id=row.offer_id,
        goal_id=row.goal_id,
        amount=row.amount,
        payout=row.payout,
        revenue=row.revenue,
        currency=row.currency,
    )
    message = compose(due, Facts(due, facts.conversion, facts.click or {}, catalog))
    return Told(row.aff_id, message.method, without_secrets(message.url))


def tell(tried: Tried) -> Iterator[str]:
    """What would happen, line by line."""
    yield f"answer        {tried.answer_status} {tried.answer_body}"
    if not tried.is_conversion:
        yield "no conversion would be recorded: what was read is no postback of one, or the answer says why"
        return
    yield f"read as       {', '.join(f'{name}={_shown(value)}' for name, value in tried.parameters.items())}"
    if tried.waits_until is not None:
        until = tried.waits_until.isoformat(sep=" ", timespec="seconds")
        yield f"it would wait for its click, which is not stored (yet), until {until} at the latest"
    yield from tried.told
    yield from (f"partner {one.aff_id} would be sent: {one.method} {one.url}" for one in tried.postbacks)
    if tried.conversion is not None and not tried.postbacks:
        yield "no partner would be told"
    yield "nothing was recorded"


async def send_sample(url: str, settings: Settings) -> Attempt:
    """Send a made-up conversion to a partner's address with macros; UserError for what is no address."""
    fault = fault_in_url(url.replace("{", "").replace("}", ""))
    if fault:
        raise UserError(f"the URL {fault}")
    facts = Facts(_due(url, "GET", uuid4(), "approved"), _SAMPLE_CONVERSION, _SAMPLE_CLICK, Catalog.empty())
    due = _due(url, "GET", facts.told.conversion_id, "approved")
    async with open_client(settings.postback_networks, settings.postback_timeout_s) as client:
        return await deliver(client, due, facts, 1.0)


def tell_sample(attempt: Attempt) -> Iterator[str]:
    """What was sent and answered, line by line."""
    yield f"sent          {attempt.method} {attempt.url}"
    if attempt.status_code:
        yield f"answered      {attempt.status_code} in {attempt.duration_ms} ms {_shown(attempt.answer[:500])}".rstrip()
    if attempt.error:
        yield f"failed        {_shown(attempt.error)}"
    verdict = "taken for delivered" if attempt.outcome == "delivered" else "tried again later, for about a day"
    yield f"a real one would be {verdict}; nothing was recorded"


def _due(url: str, method: str, conversion_id: UUID, status: str) -> Due:
    return Due(
        outbox_id=0,
        conversion_id=conversion_id,
        event="test",
        status=status,
        aff_id=1,
        offer_id=1,
        goal_id=0,
        amount=Decimal("49.90"),
        payout=Decimal("5.00"),
        revenue=Decimal("7.50"),
        currency="USD",
        method=method,
        url=url,
        host="",
        created_at=datetime.fromtimestamp(time.time(), UTC),
        attempts=1,
    )


def read_target(url: str, data: str | None = None) -> tuple[str, dict[str, str]]:
    """Path and parameters, the body's too; UserError. The host does not matter: whoever calls it has it from somewhere."""
    _, found, rest = url.partition(_ORIGIN_END)
    target = url if not found else "/" + rest.partition("/")[2]
    path, _, query = target.partition("#")[0].partition("?")
    if not path.startswith("/"):
        raise UserError(f"{url[:80]!a} is no postback's address: write it as the advertiser calls it, or /aff_lsr?…")
    params = parse_query(query)
    if data and (refusal := add_fields(params, data.encode(), is_json=data.lstrip().startswith("{"))):
        raise UserError(refusal.body.decode().strip())
    return path, params


def read_address(text: str) -> str:
    """The address that a postback is to come from; UserError."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise UserError(f"{text[:64]!a} is no address") from error


def _shown(value: str) -> str:
    return value if value.isprintable() else ascii(value)
