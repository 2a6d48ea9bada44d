"""A node whose every secret is known, driven through good requests, bad ones and failures: none of them shows anywhere.

Looked through: what every process of the node wrote on stdout and stderr (one file), PostgreSQL's own log, the command
lines, `/metrics`, `/readyz`, and every answer that the public port and the admin port gave.
"""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp
import asyncpg
import pytest

from tests.faults.load import Client, Reply, id_in
from tests.node import Node, eventually
from tests.partners import LOOPBACK, PartnerServer, say
from tests.postgres.drains import until

TOKEN = "advertisers-token-7f3a"
SIGNING = "advertisers-signing-secret-91bc"
EDGE_SECRET = "the-secret-of-the-click-ids-44de"
OLD_SECRET = "the-secret-before-that-one-58af"
ADMIN_TOKEN = "the-first-api-key-of-this-node-02"
PARTNER_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PARTNER_TOKEN = "partners-token-in-its-address-33"
GUESSED = "a-key-that-somebody-mistyped-66"
CATALOG = f"""
[[advertisers]]
id = 1
name = "asks for a token"
security_token = "{TOKEN}"
[[advertisers]]
id = 2
name = "signs"
signing_secret = "{SIGNING}"
[[partners]]
id = 1
name = "p"
postback_url = "{{origin}}/pb?cid={{{{aff_click_id}}}}&token={PARTNER_TOKEN}"
postback_secret = "{PARTNER_SECRET}"
[[offers]]
id = 1
advertiser_id = 1
name = "o"
url = "https://shop.example.com/o1?clickid={{{{transaction_id}}}}&m={{{{aff_sub}}}}"
payout = "5"
[[offers]]
id = 2
advertiser_id = 2
name = "s"
url = "https://shop.example.com/o2?clickid={{{{transaction_id}}}}&m={{{{aff_sub}}}}"
payout = "5"
"""
BAD_HEADS = [
    f"GET /aff_lsr?security_token={TOKEN} HTTP/1.1\r\n\r\n",
    f"GET /aff_lsr?security_token={TOKEN}\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    f"GET /aff_lsr HTTP/9.9\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
    f"POST /aff_lsr HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{{security_token: {TOKEN}".ljust(150),
    f"POST /aff_lsr HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{TOKEN}\r\n",
]
"""Malformed in the line, the target, the version, the body and its framing; each with the token in it."""


@pytest.fixture
async def partner() -> AsyncIterator[PartnerServer]:
    """A partner that wants to hear no more, so that its postbacks are given up and logged."""
    async with PartnerServer().listening() as partner:
        partner.reply = say(410, "gone")
        yield partner


@pytest.fixture
async def node(short_directory: Path, tmp_path: Path, partner: PartnerServer) -> AsyncIterator[Node]:
    """A node whose secrets are all known."""
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG.format(origin=partner.origin))
    env = {
        "EDGE_SECRET": f"{EDGE_SECRET},{OLD_SECRET}",
        "EDGE_ADMIN_TOKEN": ADMIN_TOKEN,
        "EDGE_POSTBACK_ALLOW": LOOPBACK,
        "EDGE_POSTBACK_RETRY": "1s",
    }
    node = Node(short_directory / f"secret-{uuid.uuid4().hex[:8]}", catalog=catalog, env=env)
    try:
        yield await node.start()
    finally:
        await node.stop(signal.SIGKILL)


def shown(reply: Reply) -> str:
    """An answer whole, as text."""
    return f"{reply.headers}\n{reply.body.decode('utf-8', 'replace')}"


async def use_public_port(node: Node) -> tuple[str, list[str]]:
    """Clicks and postbacks, good and bad, with tokens wherever one may stand; a click's id, and all answers."""
    client = Client(node.port)
    click_id = id_in(await client.ask("/aff_c?offer_id=1&aff_id=1&aff_sub=m1&aff_click_id=c-1"))
    signed_id = id_in(await client.ask(f"/aff_c?offer_id=2&aff_id=1&aff_sub=m2&security_token={TOKEN}"))
    targets = [
        f"/aff_lsr?transaction_id={click_id}&security_token={TOKEN}&amount=1",
        f"/aff_lsr?transaction_id={click_id}&security_token={TOKEN}x&format=json",
        f"/aff_lsr?transaction_id={TOKEN}{TOKEN}&security_token={TOKEN}",
        f"/aff_lsr?transaction_id={click_id}&security_token={TOKEN}%00%ff&amount={'9' * 400}&datetime=never",
        f"/aff_lsr?transaction_id={signed_id}&signature={SIGNING}&timestamp=1",
        f"/postback?click_id={click_id}&secure={TOKEN}&sum=1&goal=nothing",
        f"/?nid=1&transaction_id={click_id}&verification_token={TOKEN}",
        f"/no/such/page?security_token={TOKEN}",
        f"/aff_l?offer_id=99&security_token={TOKEN}",
    ]
    answers = [await client.ask(target, headers=f"Authorization: Bearer {TOKEN}\r\n") for target in targets]
    client.close()
    # What is echoed as an id is what was sent as one, here on purpose.
    return click_id, [shown(answer) for answer in answers if TOKEN.encode() * 2 not in answer.body]


async def send_malformed(node: Node) -> list[str]:
    """All answers to what is no request."""
    answers = []
    for head in BAD_HEADS:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(head.encode("latin-1"))
        writer.write_eof()
        answers.append((await reader.read()).decode("latin-1"))
        writer.close()
    return answers


async def use_admin_port(node: Node) -> list[str]:
    """Good and wrong keys, log-ins, changes that are refused, and what the pages say without a key."""
    bearer = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    new = {"id": 9, "name": "n", "security_token": f"{TOKEN}\0", "signing_secret": SIGNING, "nonsense": 1}
    answers = []
    async with aiohttp.ClientSession(node.admin) as session:
        for method, path, options in (
            ("GET", "/api/v1/whoami", {"headers": bearer}),
            ("GET", "/api/v1/whoami", {"headers": {"Authorization": f"Bearer {GUESSED}"}}),
            ("GET", f"/api/v1/clicks?token={ADMIN_TOKEN}", {}),
            ("POST", "/api/v1/advertisers", {"headers": bearer, "json": new}),
            ("POST", "/api/v1/advertisers", {"headers": bearer, "data": f'{{"security_token": "{TOKEN}'}),
            ("POST", "/api/v1/keys", {"headers": bearer, "json": {"name": GUESSED * 40, "scope": "root"}}),
            ("POST", "/login", {"data": {"key": GUESSED, "next": "/"}}),
            ("POST", "/login", {"data": {"key": f"{ADMIN_TOKEN}\0", "next": "/"}}),
            ("GET", "/metrics", {}),
            ("GET", "/readyz", {}),
            ("GET", "/login", {}),
            ("GET", "/api/openapi.json", {}),
        ):
            async with session.request(method, path, allow_redirects=False, **options) as answer:
                answers.append(f"{dict(answer.headers)}\n{await answer.text()}")
    return answers


async def break_things(node: Node) -> None:
    """A worker, the drain, PostgreSQL and the admin process die, one after the other; a request meets each absence."""
    client = Client(node.port)
    for role in ("postgres", "drain", "admin", "worker"):
        node.kill(role)
        try:
            await client.ask(f"/aff_lsr?transaction_id=gone&security_token={TOKEN}")
        except (OSError, EOFError):
            assert role == "worker"
    client.close()
    await node.wait_ready()


def command_lines(node: Node) -> str:
    """Of all processes, as `ps` shows them to every user."""
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in node.family()]
    return b"\n".join(lines).decode("utf-8", "replace")


async def test_no_secret_is_told_in_logs_answers_metrics_or_command_lines(node: Node) -> None:
    """Tokens, signing secrets, API keys, the ids' secret, the database's password, a partner's address: none."""
    password = urlsplit(node.database_url).password or ""
    assert len(password) > 16
    click_id, answers = await use_public_port(node)
    answers += await send_malformed(node)
    answers += await use_admin_port(node)

    async def is_given_up() -> bool:
        return "postback_dead" in node.log_path.read_text()

    await eventually(is_given_up, 20, node.describe)
    lines = command_lines(node)
    await break_things(node)
    answers += await use_admin_port(node)
    query = "SELECT FROM conversions WHERE transaction_id = $1 AND status = 'approved'"
    await until(lambda: has_row(node, query, click_id))
    assert await node.stop() == 0
    places = {
        "the processes' output": node.log_path.read_text(errors="replace"),
        "PostgreSQL's log": (node.data_dir / "postgres.log").read_text(errors="replace"),
        "the command lines": lines,
        "the answers": "\n".join(answers),
    }
    assert "child_died" in places["the processes' output"]
    secrets = [TOKEN, SIGNING, EDGE_SECRET, OLD_SECRET, ADMIN_TOKEN, PARTNER_SECRET, PARTNER_TOKEN, GUESSED, password]
    forms = [(secret, form) for secret in secrets for form in (secret, quote(secret, safe=""))] + [("", PARTNER_SECRET[6:])]
    assert [(place, secret) for place, text in places.items() for secret, form in forms if form in text] == []


async def has_row(node: Node, query: str, argument: str) -> bool:
    """Whether there is one, and a database to look into."""
    try:
        return bool(await node.fetch(query, argument))
    except (OSError, asyncpg.PostgresError):
        return False
