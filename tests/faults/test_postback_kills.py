"""Partners' postbacks over kill -9: every conversion is told, none is lost, none is told again once its 2xx is logged.

A failed run is replayed with the seed that it printed: FAULT_SEED=… make faults PYTEST_ARGS=tests/faults/test_postback_kills.py
"""

import asyncio
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from edge.sender.process import MAX_PER_HOST
from tests import partners as listeners
from tests.faults.load import MakeClient, Say, id_in
from tests.node import Node, eventually
from tests.partners import LOOPBACK, PartnerServer

CONVERSIONS = 10_000
CLIENTS = 32
HOSTS = 4
KILLS = ["sender"] * 6 + ["drain", "postgres"]
DONE_S = 60.0


class Moody(PartnerServer):
    """Answers most at once; a part with 500, 503 or a cut connection first, and a few not at all the first time."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.reply = self.answer
        self.times: dict[str, list[float]] = defaultdict(list)
        """When each conversion was heard of."""
        self.accepted: dict[str, int] = defaultdict(int)
        """How often each was answered with 200."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """By the conversion's id, which is random in its last digits, and by how often it was heard of."""
        conversion_id = request.query["id"]
        self.times[conversion_id].append(time.time())
        mood = int(conversion_id[-4:], 16) % 32
        if len(self.times[conversion_id]) == 1:
            if mood < 3:
                return await listeners.say(500)(request)
            if mood == 3:
                return await listeners.say(503, Retry_After="1")(request)
            if mood == 4:
                return await self.reset(request)
            if mood == 5:
                return await self.hang(request)
        self.accepted[conversion_id] += 1
        return web.Response()


def catalog_for(partners: list[Moody]) -> str:
    """An offer whose every conversion counts, and the partners."""
    tables = [
        f'[[partners]]\nid = {number}\nname = "p{number}"\npostback_url = "{partner.origin}/pb?id={{conversion_id}}"\n'
        for number, partner in enumerate(partners, 1)
    ]
    return "".join(
        [
            '[[advertisers]]\nid = 1\nname = "a"\n',
            *tables,
            '[[offers]]\nid = 1\nadvertiser_id = 1\nname = "o"\npayout = "5"\n',
            'url = "https://shop.example.com/o1?clickid={transaction_id}&m={aff_sub}"\n',
        ]
    )


async def convert_all(port: int, make_client: MakeClient) -> None:
    """The clicks and conversions, each answered with success."""
    numbers = iter(range(CONVERSIONS))

    async def visit() -> None:
        client = make_client(port)
        for number in numbers:
            reply = await client.ask(f"/aff_c?offer_id=1&aff_id={number % HOSTS + 1}&aff_sub=m{number}")
            reply = await client.ask(f"/aff_lsr?transaction_id={id_in(reply)}")
            assert reply.body == b"success=true;"

    await asyncio.gather(*(visit() for _ in range(CLIENTS)))


async def kill_some(node: Node, chance: random.Random) -> None:
    """One process after the other, each when it runs again."""
    for role in chance.sample(KILLS, len(KILLS)):
        await asyncio.sleep(chance.uniform(0.3, 2.0))
        # Last: the end of one may be the end of another, a moment later.
        await eventually(lambda role=role: _runs(node, role), DONE_S, node.describe)  # type: ignore[misc]
        node.kill(role)


async def _runs(node: Node, role: str) -> bool:
    return len(node.pids(role)) == 1


async def all_delivered(node: Node) -> bool:
    """Whether the outbox has every conversion, done with."""
    try:
        [row] = await node.fetch("SELECT count(*) AS n FROM postback_outbox WHERE state = 'delivered'")
    except OSError:
        return False
    return bool(row["n"] == CONVERSIONS)


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_every_conversion_is_told_over_kills_and_moody_partners(
    make_node: Callable[..., Node], tmp_path: Path, make_client: MakeClient, say: Say
) -> None:
    """10,000 conversions, partners that fail, hang and answer 500 in turn, sender, drain and PostgreSQL killed."""
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
    say(f"FAULT_SEED={seed}")
    began_s = time.monotonic()
    async with AsyncExitStack() as stack:
        partners = [Moody(f"127.0.0.{number}") for number in range(1, HOSTS + 1)]
        for partner in partners:
            await stack.enter_async_context(partner.listening())
        catalog = tmp_path / "partners.toml"
        catalog.write_text(catalog_for(partners))
        node = await make_node(
            catalog=catalog, EDGE_POSTBACK_ALLOW=LOOPBACK, EDGE_POSTBACK_TIMEOUT="1s", EDGE_POSTBACK_RETRY="1s"
        ).start()
        await asyncio.gather(convert_all(node.port, make_client), kill_some(node, random.Random(seed)))
        await eventually(lambda: all_delivered(node), DONE_S, node.describe)
        again = await check(node, partners)
        took_s = time.monotonic() - began_s
        say(
            f"{CONVERSIONS} conversions in {took_s:.0f} s, kills {KILLS}; {sum(len(one.heard) for one in partners)} requests;"
            f" 0 lost, 0 told again after a logged 2xx, {again} answered with 200 twice: killed before the log"
        )
        assert await node.stop() == 0


async def check(node: Node, partners: list[Moody]) -> int:
    """All was told, each 2xx is logged once and is the end of it; how many heard twice, which only a kill explains."""
    rows = await node.fetch(
        "SELECT conversion_id, finished_at, (SELECT count(*) FROM postback_log AS log"
        " WHERE log.outbox_id = outbox.outbox_id AND status_code = 200) AS logged FROM postback_outbox AS outbox"
    )
    assert len(rows) == CONVERSIONS
    assert {row["logged"] for row in rows} == {1}
    finished = {row["conversion_id"].hex: row["finished_at"].timestamp() for row in rows}
    accepted = {one: count for partner in partners for one, count in partner.accepted.items()}
    assert accepted.keys() == finished.keys()
    late = [one for partner in partners for one, times in partner.times.items() if max(times) > finished[one]]
    assert late == []
    again = sum(count - 1 for count in accepted.values())
    assert again <= len(KILLS) * HOSTS * MAX_PER_HOST
    return again
