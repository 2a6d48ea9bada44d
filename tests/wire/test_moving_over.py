"""A network moves over: exports, `import catalog`, `apply`, `import clicks`; then its advertisers' old postbacks just work."""

import asyncio
import csv
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.load import Client
from tests.node import Node, eventually
from tests.partners import LOOPBACK, PartnerServer
from tests.wire.test_commands import run
from tests.wire.test_imports import EXPORTS, FIXTURES

THEIR_PARTNER = "https://dealblog.example"
TUNE_ID, EVERFLOW_ID = "102f3a7b9c1d2e3f405162738495a6", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
ADVERTISERS_SERVER = "X-Forwarded-For: 203.0.113.5\r\n"
CONVERSIONS = (
    "SELECT conversion_id::text, status, reason, aff_id, goal_id, payout::text, revenue::text FROM conversions"
    " WHERE transaction_id = $1 ORDER BY received_at"
)


@pytest.fixture
async def partner() -> AsyncIterator[PartnerServer]:
    """The server of the partner that the exports know as Deal Blog."""
    async with PartnerServer().listening() as partner:
        yield partner


@pytest.fixture
async def node(make_node: Callable[..., Node]) -> Node:
    """A running node without a catalog, behind a proxy."""
    env = {"EDGE_POSTBACK_ALLOW": LOOPBACK, "EDGE_POSTBACK_RETRY": "1s", "EDGE_TRUSTED_PROXIES": "127.0.0.1/32"}
    return await make_node(catalog=None, **env).start()


async def command(*arguments: str | Path, code: int = 0) -> str:
    """What a command prints, without this loop's partner waiting for it."""
    return await asyncio.to_thread(lambda: run(*arguments, code=code))


async def move_catalog(node: Node, tmp_path: Path, vendor: str, changes: dict[str, str]) -> None:
    """The exports, with `changes` of their text, through the commands of docs/moving.md; the file is applied as it is."""
    exports = []
    for name in EXPORTS[vendor]:
        text = (FIXTURES / name).read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        exports.append(tmp_path / name)
        exports[-1].write_text(text)
    out = tmp_path / "catalog.toml"
    await command("import", "catalog", *exports, "--from", vendor, "-o", out)
    await command("apply", "--dry-run", "--data-dir", node.data_dir, out)
    await command("apply", "--data-dir", node.data_dir, out)


async def move_clicks(node: Node, tmp_path: Path, vendor: str, changes: dict[str, str], code: int = 0) -> str:
    """The exported clicks, with `changes` of some columns in every row."""
    delimiter = ";" if vendor == "everflow" else ","
    with (FIXTURES / f"{vendor}_clicks.csv").open(newline="") as file:
        rows = [{**row, **changes} for row in csv.DictReader(file, delimiter=delimiter)]
    path = tmp_path / "clicks.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    told = await command("import", "clicks", path, "--from", vendor, "--data-dir", node.data_dir, code=code)
    # The worker hears of it within a second or two; the domain is not here before.
    await eventually(lambda: _knows_their_ids(node), 20, node.describe)
    return told


async def _knows_their_ids(node: Node) -> bool:
    return await tell(node, "/aff_lsr?transaction_id=nobodys") == b"success=true;"


async def tell(node: Node, target: str) -> bytes:
    """What the advertiser's server is answered."""
    client = Client(node.port)
    try:
        return (await client.ask(target, headers=ADVERTISERS_SERVER)).body
    finally:
        client.close()


async def decided(node: Node, transaction_id: str, count: int) -> list[tuple[object, ...]]:
    """The conversions with that id, when there are so many."""

    async def are_there() -> bool:
        return len(await node.fetch(CONVERSIONS, transaction_id)) == count

    await eventually(are_there, 20, node.describe)
    return [tuple(row) for row in await node.fetch(CONVERSIONS, transaction_id)]


async def heard(node: Node, partner: PartnerServer, count: int) -> list[str]:
    """What the partner was asked for, when it was so often and each answer is logged."""

    async def is_heard() -> bool:
        return len(await node.fetch("SELECT FROM postback_outbox WHERE state = 'delivered'")) == count

    await eventually(is_heard, 20, node.describe)
    return [one.target for one in partner.heard]


async def test_from_tune(node: Node, partner: PartnerServer, tmp_path: Path) -> None:
    """Its offers want approval: the old id's conversion waits for a person, then its partner hears; `explain` tells it all."""
    await move_catalog(node, tmp_path, "tune", {THEIR_PARTNER: partner.origin})
    when = f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%d %H:%M:%S}"
    told = await move_clicks(
        node, tmp_path, "tune", {"Stat.datetime": when, "Stat.affiliate_info2": "pub-7"}, code=1
    )
    assert "3 clicks imported, 0 known already, 1 rejected" in told
    order = f"transaction_id={TUNE_ID}&security_token=a1b2c3d4&amount=80&adv_sub=order-1"
    assert await tell(node, f"/aff_lsr?{order}") == b"success=true;"
    [(base_id, *base)] = await decided(node, TUNE_ID, 1)
    assert base == ["pending", "", 2, 0, "6.000000", "9.600000"]
    assert await tell(node, f"/aff_goal?a=lsr&goal_id=3&{order}") == b"success=true;"
    [_, (lead_id, *lead)] = await decided(node, TUNE_ID, 2)
    assert lead == ["pending", "", 2, 3, "1.200000", "1.500000"]
    assert partner.heard == []
    assert await command("conversion", "approve", str(base_id), "--data-dir", node.data_dir) == (
        f"{base_id}: status pending -> approved\n"
    )
    assert await heard(node, partner, 1) == ["/pb?cid=pub-7&amount=6.00"]
    story = await command("explain", TUNE_ID, "--data-dir", node.data_dir)
    assert story.startswith(f"'{TUNE_ID}' is another system's id of this click:\n")
    assert re.search(r"minted .* by worker 63 of node 0\n\nclick  .*  redirected", story)
    assert re.search(r"aff_sub1 +spring\n +aff_sub2 +pub-7\n", story)
    assert re.search(r"conversion 1  .*  approved  \(status code \d+, by postback", story)
    assert re.search(rf"postback +approved to partner 2 .*: delivered, 1 attempt\n.*GET {partner.origin}/pb\?", story)
    assert re.search(rf"conversion 2  .*  pending  .*\n +id +{lead_id}\n", story)


async def test_from_everflow(node: Node, partner: PartnerServer, tmp_path: Path) -> None:
    """Base conversion and event by its own postback, both approved at once and told; the partner's links lead on."""
    changes = {THEIR_PARTNER: partner.origin, '"is_must_approve_conversion": true': '"is_must_approve_conversion": false'}
    await move_catalog(node, tmp_path, "everflow", changes)
    when = f"{(datetime.now(UTC) - timedelta(days=2)).timestamp():.0f}"
    told = await move_clicks(node, tmp_path, "everflow", {"Unix Timestamp": when})
    assert "2 clicks imported, 0 known already, 0 rejected" in told
    order = f"nid=1&transaction_id={EVERFLOW_ID}&amount=80&adv1=order-9"
    assert await tell(node, f"/?{order}&verification_token=s3cr3t") == b"SUCCESS"
    assert await tell(node, f"/?{order}&verification_token=s3cr3t&event_id=102") == b"SUCCESS"
    assert await tell(node, f"/?{order}&verification_token=wrong") == b"SUCCESS"
    rows = await decided(node, EVERFLOW_ID, 3)
    assert sorted(row[1:] for row in rows) == [
        ("approved", "", 2, 0, "6.000000", "8.700000"),
        ("approved", "", 2, 102, "8.000000", "1.500000"),
        ("rejected", "bad_token", 2, 0, "0.000000", "0.000000"),
    ]
    assert sorted(await heard(node, partner, 2)) == ["/pb?cid=s-2&amount=6.00", "/pb?cid=s-2&amount=8.00"]
    story = await command("explain", EVERFLOW_ID, "--data-dir", node.data_dir)
    assert story.startswith(f"'{EVERFLOW_ID}' is another system's id of this click:\n")
    assert re.search(r"adv_sub1 +order-9\n", story)
    assert re.search(r"rejected because bad_token .*", story)
    assert "the security_token is wrong" in story
    assert len(re.findall(r"delivered, 1 attempt\n", story)) == 2
    assert "s3cr3t" not in story
    client = Client(node.port)
    landing = await client.ask("/aff_c?offer_id=17&aff_id=2&source=mail")
    client.close()
    assert landing.status == 200  # the export says single_meta_refresh
    assert b"shop.outletforce.example/landing" in landing.body
