"""`clickedge key`, and the admin token that `serve` makes an API key of, on real databases."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from edge.cli.key import key
from edge.node import admit_admin_token, with_secrets
from edge.settings import Settings
from storage.postgres.api_keys import hash_token
from tests.node import Node, eventually


def run(database: str, *arguments: str) -> Result:
    """The command's outcome."""
    return CliRunner().invoke(key, [*arguments, "--database", database])


async def fetch(database: str, query: str) -> list[tuple[Any, ...]]:
    """Rows of that database."""
    conn = await asyncpg.connect(database)
    rows = [tuple(row) for row in await conn.fetch(query)]
    await conn.close()
    return rows


def test_a_key_is_made_listed_and_revoked(database: str) -> None:
    """The token is on stdout alone, so that a script can keep it; only its hash is stored; the list never has it."""
    made = run(database, "create", "nightly export", "--scope", "reports", "--expires", "90d")
    token = made.stdout.strip()
    assert re.fullmatch(r"ce_[A-Za-z0-9_-]{43}", token)
    [(stored, name)] = asyncio.run(fetch(database, "SELECT key_hash, name FROM api_keys"))
    assert (bytes(stored), name) == (hash_token(token), "nightly export")
    listed = run(database, "list").stdout
    assert re.search(r"1  reports  nightly export  never used, until 20\d\d-\d\d-\d\d", listed)
    assert token not in listed
    assert run(database, "revoke", "1").stdout == "key 1 (nightly export) is revoked\n"
    assert "revoked 20" in run(database, "list").stdout


def test_a_key_that_cannot_be_made_says_why(database: str) -> None:
    """The fault in words; nothing is stored."""
    for arguments, said in (
        (("--scope", "partner"), "aff_id: is needed"),
        (("--scope", "partner", "--partner", "9"), "there is no partners[9]"),
        (("--scope", "admin", "--expires", "soon"), "--expires: 'soon' is no time"),
    ):
        assert said in str(run(database, "create", "x", *arguments).exception)
    assert "there is no key 7" in str(run(database, "revoke", "7").exception)
    assert run(database, "list").stdout == "there is no key\n"


async def test_the_admin_token_is_a_key_and_its_successor_ends_it(database: str, tmp_path: Path) -> None:
    """Said again it stays one key; another one replaces it; a node's token leaves other nodes' alone."""
    for node_id, token in (
        (0, "first-token-of-0"),
        (0, "first-token-of-0"),
        (1, "token-of-node-1"),
        (0, "second-of-node-0"),
    ):
        await admit_admin_token(Settings(data_dir=str(tmp_path), node_id=node_id, admin_token=token), database)
    rows = await fetch(database, "SELECT name, scope, revoked_at IS NULL FROM api_keys ORDER BY key_id")
    assert rows == [
        ("EDGE_ADMIN_TOKEN of node 0", "admin", False),
        ("EDGE_ADMIN_TOKEN of node 1", "admin", True),
        ("EDGE_ADMIN_TOKEN of node 0", "admin", True),
    ]


async def test_a_revoked_admin_token_stays_revoked(database: str, tmp_path: Path) -> None:
    """A restart does not bring it back; the log says what to do."""
    settings = Settings(data_dir=str(tmp_path), admin_token="leaked-into-a-chat")
    await admit_admin_token(settings, database)
    await fetch(database, "UPDATE api_keys SET revoked_at = now()")
    with capture_logs() as logs:
        await admit_admin_token(settings, database)
    assert await fetch(database, "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == [(0,)]
    assert [line["event"] for line in logs] == ["admin_token_revoked"]
    assert "leaked" not in str(logs)


def test_the_admin_token_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    """0600, and the same at the next start."""
    settings = Settings(data_dir=str(tmp_path))
    token = with_secrets(settings).admin_token
    assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600
    assert with_secrets(settings).admin_token == token
    assert len(token) >= 32


async def test_serve_says_where_its_first_key_is_and_never_what(make_node: Callable[..., Node]) -> None:
    """With what is in that file the API answers; a key revoked by the command is out within seconds."""
    node = await make_node().start()
    path = node.data_dir / "admin.token"
    token = path.read_text().strip()
    log = node.log_path.read_text()
    assert f"log in with the API key in {path}" in log
    assert token not in log
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(node.admin, headers=headers) as session:
        async with session.get("/api/v1/offers/17") as answer:
            assert (answer.status, (await answer.json())["id"]) == (200, 17)
        revoked = await asyncio.to_thread(run, node.database_url, "revoke", "1")
        assert revoked.exit_code == 0

        async def is_out() -> bool:
            async with session.get("/api/v1/whoami") as answer:
                return answer.status == 401

        await eventually(is_out, 20, node.describe)
