"""The outbox under senders that die, share and lose PostgreSQL: invariants O1 to O4 of storage/postgres/outbox.py."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from storage.postgres.outbox import Attempt, Due, Outcome, finish, forget, free_leases, measure, take_due
from tests.faults.gate import Gate
from tests.partners import PartnerServer, say
from tests.postgres.drains import Bench, until
from tests.postgres.senders import log_of, partners_toml, sending, states
from tests.wire_proxy import Cut, Portion, WireProxy

NOBODY = "http://127.0.0.1:9"


async def queue_for(bench: Bench, origin: str, count: int) -> list[bytes]:
    """So many conversions to be told at `origin`; their ids."""
    revision = await bench.apply(partners_toml(f'postback_url = "{origin}/pb?id={{conversion_id}}"'))
    scribe = bench.scribe(revision=revision)
    ids = [scribe.convert(scribe.click()) for _ in range(count)]
    await bench.drain()
    return ids


async def take(bench: Bench, *, node_id: int = 0, **given: Any) -> list[Due]:
    """Take what is due, as a sender does."""
    values: dict[str, Any] = {"busy": {}, "per_host": 8, "limit": 100, "lease_s": 60.0, **given}
    return await take_due(bench.conn, node_id=node_id, **values)


def ended(due: Due, outcome: Outcome, retry_in_s: float = 0.0) -> Attempt:
    """How an attempt ended."""
    code = 200 if outcome == "delivered" else 500
    now = datetime.now(UTC)
    return Attempt(
        due.outbox_id, due.conversion_id, due.attempts, now, "GET", "u", code, 1, "", "", outcome, retry_in_s
    )


async def test_a_row_is_one_senders_until_its_lease_ends(bench: Bench) -> None:
    """Nobody else gets it before; then it is due again, and the attempt has counted."""
    await queue_for(bench, NOBODY, 1)
    [first] = await take(bench, lease_s=60)
    assert await take(bench, node_id=1) == []
    await bench.conn.execute("UPDATE postback_outbox SET next_attempt_at = now()")
    [second] = await take(bench, node_id=1)
    assert (first.attempts, second.attempts) == (1, 2)


async def test_a_restarted_sender_frees_its_own_rows_only(bench: Bench) -> None:
    """What another node has in hand stays in its hands."""
    await queue_for(bench, NOBODY, 2)
    [mine] = await take(bench, limit=1)
    [others] = await take(bench, node_id=1, limit=1)
    assert mine.outbox_id != others.outbox_id
    assert await free_leases(bench.conn, 0) == 1
    assert [one.outbox_id for one in await take(bench)] == [mine.outbox_id]


async def test_a_host_gets_only_the_room_it_has(bench: Bench) -> None:
    """What is busy counts; a full host hides nobody else's rows, however many of its own are due first."""
    await queue_for(bench, "http://a.example", 20)
    await queue_for(bench, "http://b.example", 20)
    taken = Counter(one.host for one in await take(bench, busy={"a.example": 6}, per_host=8))
    assert taken == {"a.example": 2, "b.example": 8}
    taken = Counter(one.host for one in await take(bench, busy={"a.example": 8, "b.example": 9, "z": 1}, per_host=8))
    assert taken == {}
    assert len(await take(bench, limit=3)) == 3


@pytest.mark.parametrize("outcome", ["delivered", "dead"])
async def test_a_later_event_waits_until_the_earlier_has_ended(bench: Bench, outcome: Outcome) -> None:
    """While that is sent, and while it is to be tried again; what is due at once is put off, and counts no attempt."""
    await queue_for(bench, NOBODY, 1)
    await bench.conn.execute(
        "INSERT INTO postback_outbox (conversion_id, event, status, target, aff_id, offer_id, url, host)"
        " SELECT conversion_id, 'change 7', 'reversed', target + more, aff_id, offer_id, url, host"
        " FROM postback_outbox, generate_series(0, 1) AS more"
    )
    [first] = await take(bench)
    assert await take_due_now(bench, "reversed") == []
    await finish(bench.conn, [ended(first, "failed", 3600)])
    assert await take_due_now(bench, "reversed") == []
    assert await bench.value("SELECT min(next_attempt_at) > now() + interval '59 min' FROM postback_outbox")
    [again] = await take_due_now(bench, "approved")
    await finish(bench.conn, [ended(again, outcome)])
    assert [(one.status, one.attempts) for one in await take_due_now(bench, "reversed")] == [("reversed", 1)] * 2


async def take_due_now(bench: Bench, status: str) -> list[Due]:
    """What is taken once the time of the rows of that status has come."""
    await bench.conn.execute("UPDATE postback_outbox SET next_attempt_at = now() WHERE status = $1", status)
    return await take(bench)


async def test_a_delivered_row_stays_delivered(bench: Bench) -> None:
    """A failure that comes late, of an attempt that was given up for lost, changes nothing; nor does the line repeated."""
    await queue_for(bench, NOBODY, 1)
    [lost] = await take(bench, lease_s=0)
    [again] = await take(bench)
    await finish(bench.conn, [ended(again, "delivered")])
    await finish(bench.conn, [ended(lost, "failed")])
    await finish(bench.conn, [ended(lost, "dead"), ended(again, "delivered")])
    assert await states(bench) == {"delivered": 1}
    assert [(one["attempt"], one["status_code"]) for one in await log_of(bench)] == [(1, 500), (2, 200)]
    assert await take(bench) == []


async def test_a_late_failure_takes_no_row_out_of_anothers_hands(bench: Bench) -> None:
    """The row goes on as the attempt counted last says; a late 2xx ends it."""
    await queue_for(bench, NOBODY, 1)
    [lost] = await take(bench, lease_s=0)
    [again] = await take(bench, node_id=1, lease_s=60)
    await finish(bench.conn, [ended(lost, "failed")])
    assert await take(bench) == []
    assert await bench.value("SELECT leased_by FROM postback_outbox") == 1
    await finish(bench.conn, [ended(lost._replace(attempts=3), "delivered")])
    assert await states(bench) == {"delivered": 1}
    await finish(bench.conn, [ended(again, "failed")])
    assert await states(bench) == {"delivered": 1}


async def test_the_backlog_is_measured(bench: Bench) -> None:
    """How many wait, and how long the oldest has."""
    assert await measure(bench.conn) == (0, 0.0)
    await queue_for(bench, NOBODY, 3)
    await bench.conn.execute("UPDATE postback_outbox SET created_at = now() - interval '90 s' WHERE outbox_id = 1")
    pending, oldest_s = await measure(bench.conn)
    assert pending == 3
    assert 90 <= oldest_s < 120


async def test_what_is_done_with_is_forgotten_in_time(bench: Bench) -> None:
    """Rows that are still to be sent are not, however old."""
    await queue_for(bench, NOBODY, 3)
    taken = await take(bench, limit=2)
    await finish(bench.conn, [ended(taken[0], "delivered"), ended(taken[1], "dead")])
    await forget(bench.conn, datetime.now(UTC) - timedelta(days=1))
    assert (await states(bench), len(await log_of(bench))) == ({"delivered": 1, "dead": 1, "pending": 1}, 2)
    await forget(bench.conn, datetime.now(UTC) + timedelta(days=1))
    assert (await states(bench), await log_of(bench)) == ({"pending": 1}, [])


async def test_two_nodes_share_the_work(embedded_bench: Bench) -> None:
    """Every row is told once, whoever takes it, and both take some."""
    bench = embedded_bench
    async with PartnerServer().listening() as partner:
        ids = await queue_for(bench, partner.origin, 300)
        async with sending(bench), sending(bench, node_id=1):
            await until(lambda: _all_delivered(bench, 300))
    assert Counter(one.query["id"] for one in partner.heard) == {one.hex(): 1 for one in ids}


async def _all_delivered(bench: Bench, count: int) -> bool:
    return (await states(bench)).get("delivered", 0) == count


PORTIONS: list[Portion] = ["nothing", "half", "all"]
CUTS = [
    *(Cut(pattern, 0, portion) for pattern, portion in product((b"INTO postback_log", b"UPDATE postback_outbox AS"), PORTIONS)),
    *(Cut(b"COMMIT;", 0, portion) for portion in PORTIONS),
    *(Cut(b"WITH RECURSIVE hosts", 0, portion) for portion in PORTIONS),
]  # fmt: skip


@pytest.mark.parametrize("cut", CUTS, ids=str)
async def test_a_wire_cut_at_any_statement_doubles_nothing(embedded_bench: Bench, cut: Cut) -> None:
    """What was answered is remembered, and logged over the next connection before anything more is taken."""
    bench = embedded_bench
    async with PartnerServer().listening() as partner, WireProxy(bench.url).listening() as proxy:
        proxy.arm(cut)
        ids = await queue_for(bench, partner.origin, 5)
        async with sending(bench, url=proxy.url):
            await proxy.wait_cut()
            if cut.pattern.startswith(b"WITH"):  # what a lost answer named waits for its lease: let it end
                await bench.conn.execute("UPDATE postback_outbox SET next_attempt_at = now() WHERE state = 'pending'")
            await until(lambda: _all_delivered(bench, 5))
    assert proxy.cuts == 1
    assert Counter(one.query["id"] for one in partner.heard) == {one.hex(): 1 for one in ids}
    assert len(await log_of(bench)) == 5


async def test_while_postgres_is_away_the_sender_waits(embedded_bench: Bench) -> None:
    """It neither ends nor repeats: what was answered meanwhile is logged when the database is back, and told once."""
    bench = embedded_bench
    async with PartnerServer().listening() as partner:
        gate = Gate(bench.url)
        await gate.open()
        ids = await queue_for(bench, partner.origin, 6)
        release = asyncio.Event()
        reply = say(200)

        async def when_released(request: Any) -> Any:
            await release.wait()
            return await reply(request)

        partner.reply = when_released
        async with sending(bench, url=gate.url) as sender:
            await until(lambda: _count(len(partner.heard) == 6))
            await gate.shut()
            release.set()
            await until(lambda: _count(len(sender._ended) == 6))
            await bench.conn.execute("UPDATE postback_outbox SET next_attempt_at = now() - interval '1 h'")
            await gate.open()
            await until(lambda: _all_delivered(bench, 6))
        await gate.shut()
    assert Counter(one.query["id"] for one in partner.heard) == {one.hex(): 1 for one in ids}


async def _count(is_so: bool) -> bool:
    return is_so


async def test_a_sender_told_to_stop_waits_for_its_answers(embedded_bench: Bench) -> None:
    """And logs them: none of what it began is told again by the next."""
    bench = embedded_bench
    async with PartnerServer().listening() as partner:
        release = asyncio.Event()

        async def when_released(request: Any) -> Any:
            await release.wait()
            return await say(200)(request)

        partner.reply = when_released
        await queue_for(bench, partner.origin, 20)
        async with sending(bench) as sender:
            await until(lambda: _count(len(partner.heard) == 8))
            sender._stop.set()
            asyncio.get_running_loop().call_later(0.3, release.set)
        assert await states(bench) == {"delivered": 8, "pending": 12}
        async with sending(bench):
            await until(lambda: _all_delivered(bench, 20))
    assert set(Counter(one.query["id"] for one in partner.heard).values()) == {1}
