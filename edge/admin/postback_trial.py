"""Trying a postback: what an advertiser's would come to, and how a partner answers a sample. Nothing is recorded."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_address
from typing import NamedTuple
from uuid import UUID, uuid4

from edge.drain.rehearsal import Rehearsed
from edge.errors import UserError
from edge.http.routes import add_fields
from edge.sender.delivery import compose, deliver, open_client
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from edge.tracking.headers import Headers
from edge.tracking.parameters import parse_query
from edge.tracking.postback_values import Facts
from edge.tracking.postbacks import without_secrets
from edge.tracking.story import tell_conversion
from edge.tracking.urls import fault_in_url
from storage.postgres.outbox import Attempt, Due

_ORIGIN_END = "://"
# Whatever a partner's macros may ask for: nothing that could be taken for a real conversion.
_SAMPLE_CONVERSION = {"adv_sub1": "sample-order", "goal_id": 0, "converted_at": None, "ip": "192.0.2.1", "extras": {}}
_SAMPLE_CLICK = {
    **{f"aff_sub{number}": f"sample-sub{number}" for number in range(1, 6)},
    "aff_click_id": "sample-click",
    "source": "sample-source",
    "country": "US",
    "extras": {},
}


class Trial(NamedTuple):
    """A postback as it would arrive: the arguments of `rehearse`."""

    method: str
    path: str
    params: dict[str, str]
    headers: Headers
    ip: str


def read_trial(url: str, data: str | None, authorization: str, from_ip: str) -> Trial:
    """What an advertiser would send. `data`: the body of a POST; UserError for what is no postback."""
    path, params = read_target(url)
    if data and (refusal := add_fields(params, data.encode(), is_json=data.lstrip().startswith("{"))):
        raise UserError(refusal.body.decode().strip())
    headers = Headers(user_agent="clickedge postback-test", authorization=authorization)
    return Trial("GET" if data is None else "POST", path, params, headers, to_address(from_ip))


def tell(rehearsed: Rehearsed) -> Iterator[str]:
    """What would happen, line by line."""
    answer, event = rehearsed.handled.answer, rehearsed.event
    yield f"answer        {answer.status} {answer.body.decode('ascii', 'replace').strip()[:500]}"
    if event is None:
        yield "no conversion would be recorded: what was read is no postback of one, or the answer says why"
        return
    known = {name: value for name, value in sorted(event.params.items()) if name != "security_token"}
    yield f"read as       {', '.join(f'{name}={_shown(value)}' for name, value in known.items())}"
    if rehearsed.waits_until is not None:
        until = rehearsed.waits_until.isoformat(sep=" ", timespec="seconds")
        yield f"it would wait for its click, which is not stored (yet), until {until} at the latest"
    if rehearsed.conversion is not None:
        title = "it would change the conversion to" if rehearsed.is_change else "it would be stored as"
        yield from tell_conversion(title, rehearsed.conversion, rehearsed.changes)
    yield from _tell_postbacks(rehearsed)
    yield "nothing was recorded"


def _tell_postbacks(rehearsed: Rehearsed) -> Iterator[str]:
    facts = rehearsed.facts
    if facts is None:
        return
    for row in rehearsed.postbacks:
        told = _due(row.url, row.method, UUID(bytes=bytes(row.conversion_id.bytes)), row.status)._replace(
            aff_id=row.aff_id,
            offer_id=row.offer_id,
            goal_id=row.goal_id,
            amount=row.amount,
            payout=row.payout,
            revenue=row.revenue,
            currency=row.currency,
        )
        message = compose(told, Facts(told, facts.conversion, facts.click or {}, rehearsed.catalog))
        yield f"partner {row.aff_id} would be sent: {message.method} {without_secrets(message.url)}"
    if not rehearsed.postbacks:
        yield "no partner would be told"


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


def read_target(url: str) -> tuple[str, dict[str, str]]:
    """Path and parameters. The host does not matter: whoever calls it has it from somewhere."""
    _, found, rest = url.partition(_ORIGIN_END)
    target = url if not found else "/" + rest.partition("/")[2]
    path, _, query = target.partition("#")[0].partition("?")
    if not path.startswith("/"):
        raise UserError(f"{url[:80]!a} is no postback's address: write it as the advertiser calls it, or /aff_lsr?…")
    return path, parse_query(query)


def to_address(text: str) -> str:
    """The address that a postback is to come from; UserError."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise UserError(f"--from-ip: {text[:64]!a} is no address") from error


def _shown(value: str) -> str:
    return value if value.isprintable() else ascii(value)
