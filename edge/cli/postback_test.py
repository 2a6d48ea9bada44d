"""`clickedge postback-test`: what a postback would come to, or how a partner answers a sample; nothing is recorded."""

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from uuid import UUID, uuid4

import click

from edge.admin.postback_tests import read_target
from edge.cli.database import database_options, run_connected
from edge.drain.rehearsal import Rehearsed, rehearse
from edge.errors import UserError
from edge.http.routes import add_fields
from edge.node import with_secrets
from edge.postback_preview import preview
from edge.sender.delivery import deliver, open_client
from edge.settings import Settings, load_settings
from edge.tracking.catalog import Catalog
from edge.tracking.headers import Headers
from edge.tracking.postback_values import Facts
from edge.tracking.story import tell_conversion
from edge.tracking.urls import fault_in_url
from storage.postgres.connection import resolve_url
from storage.postgres.outbox import Attempt, Due

# Whatever a partner's macros may ask for: nothing that could be taken for a real conversion.
_SAMPLE_CONVERSION = {"adv_sub1": "sample-order", "goal_id": 0, "converted_at": None, "ip": "192.0.2.1", "extras": {}}
_SAMPLE_CLICK = {
    **{f"aff_sub{number}": f"sample-sub{number}" for number in range(1, 6)},
    "aff_click_id": "sample-click",
    "source": "sample-source",
    "country": "US",
    "extras": {},
}


@click.command("postback-test")
@click.argument("url")
@click.option("--data", default=None, help="The body, if it is a POST: a form, or a flat JSON object.")
@click.option("--authorization", default="", help="The Authorization header, where a vendor's form has one.")
@click.option("--from-ip", default="127.0.0.1", show_default=True, help="The address that the postback comes from.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings as TOML, as for serve.")
@database_options
def postback_test(
    url: str,
    data: str | None,
    authorization: str,
    from_ip: str,
    config: Path | None,
    data_dir: Path,
    database: str | None,
) -> None:
    """Try a postback's URL without recording anything.

    An advertiser's, in any dialect, is judged as it would be now; its host does not matter. A URL with {macros} is a
    partner's: a sample is sent there, and the answer shown.
    """
    settings = load_settings(os.environ, config, {"data_dir": data_dir, "database_url": database})
    if "{" in url:
        lines = _tell_sample(url, asyncio.run(_send_sample(url, settings)))
    else:
        path, params = read_target(url)
        method = "GET" if data is None else "POST"
        if data and (refusal := add_fields(params, data.encode(), is_json=data.lstrip().startswith("{"))):
            raise UserError(refusal.body.decode().strip())
        headers = Headers(user_agent="clickedge postback-test", authorization=authorization)
        address = _to_address(from_ip)
        database_url = resolve_url(settings.database_url, settings.data_path)
        with_keys = with_secrets(settings)
        rehearsed = run_connected(
            database_url,
            "postback-test",
            lambda conn: rehearse(conn, with_keys, method, path, params, headers, address),
        )
        lines = tell(rehearsed)
    for line in lines:
        click.echo(line)


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
        url = preview(row, facts, rehearsed.catalog)
        yield f"partner {row.aff_id} would be sent: {row.method} {url}"
    if not rehearsed.postbacks:
        yield "no partner would be told"


async def _send_sample(url: str, settings: Settings) -> Attempt:
    fault = fault_in_url(url.replace("{", "").replace("}", ""))
    if fault:
        raise UserError(f"the URL {fault}")
    facts = Facts(_due(url, "GET", uuid4(), "approved"), _SAMPLE_CONVERSION, _SAMPLE_CLICK, Catalog.empty())
    due = _due(url, "GET", facts.told.conversion_id, "approved")
    async with open_client(settings.postback_networks, settings.postback_timeout_s) as client:
        return await deliver(client, due, facts, 1.0)


def _tell_sample(url: str, attempt: Attempt) -> Iterator[str]:
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


def _to_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise UserError(f"--from-ip: {text[:64]!a} is no address") from error


def _shown(value: str) -> str:
    return value if value.isprintable() else ascii(value)
