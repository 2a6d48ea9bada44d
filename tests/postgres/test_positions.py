"""Positions and what they vouch for. P1-P4 are `storage.postgres.positions`'s."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from storage.postgres.connection import Connection, connect
from storage.postgres.positions import Move, PositionMoved, advance, finish, read, register, vouched_through

START = (1, 0)


@pytest.fixture
async def conn(any_database: str) -> AsyncIterator[Connection]:
    """A connection to a fresh database."""
    connection = await connect(any_database)
    yield connection
    await connection.close()


@pytest.fixture
async def rival(any_database: str) -> AsyncIterator[Connection]:
    """Another one to the same database."""
    connection = await connect(any_database)
    yield connection
    await connection.close()


async def make(conn: Connection, watermark_ms: int = 0, *, is_finished: bool = False, worker: int = 0) -> UUID:
    """A journal's row."""
    journal_id = uuid4()
    await register(conn, [(journal_id, 0, worker)])
    await advance(conn, [Move(journal_id, None, START, (1, 100), watermark_ms)])
    if is_finished:
        await finish(conn, journal_id, (1, 100))
    return journal_id


async def test_a_journal_is_registered_once(conn: Connection) -> None:
    """Again, and with others, it keeps the position that it has."""
    known = await make(conn, 7)
    other = uuid4()
    await register(conn, [(known, 0, 0), (other, 0, 1)])
    assert await read(conn, known) == (1, 100, 7, False)
    assert await read(conn, other) == (1, 0, 0, False)


async def test_a_position_moves_only_from_where_it_is(conn: Connection) -> None:
    """P1: from another segment or offset, or of no journal at all, it does not move."""
    journal_id = await make(conn)
    for before in (START, (1, 99), (2, 100)):
        with pytest.raises(PositionMoved):
            await advance(conn, [Move(journal_id, None, before, (2, 5), 1)])
    with pytest.raises(PositionMoved):
        await advance(conn, [Move(uuid4(), None, (1, 100), (2, 5), 1)])
    await advance(conn, [Move(journal_id, None, (1, 100), (2, 5), 1)])
    assert await read(conn, journal_id) == (2, 5, 1, False)


async def test_a_watermark_never_falls(conn: Connection) -> None:
    """P3: a batch without ids, or with quarantined ones only, takes nothing back."""
    journal_id = await make(conn, 500)
    await advance(conn, [Move(journal_id, None, (1, 100), (1, 200), 0)])
    assert (await read(conn, journal_id)).watermark_ms == 500


async def test_a_position_is_read_only_when_nobody_is_moving_it(conn: Connection, rival: Connection) -> None:
    """P2: a transaction whose client is gone may still commit; until it has ended there is no answer."""
    journal_id = await make(conn)
    transaction = rival.transaction()
    await transaction.start()
    await advance(rival, [Move(journal_id, None, (1, 100), (1, 200), 1)])
    reading = asyncio.create_task(read(conn, journal_id))
    done, _ = await asyncio.wait([reading], timeout=0.3)
    assert not done
    await transaction.commit()
    assert (await reading).byte_offset == 200


@pytest.mark.parametrize("is_committed", [True, False])
async def test_of_two_at_once_one_moves(conn: Connection, rival: Connection, is_committed: bool) -> None:
    """P1: the second waits for the first, then finds the position moved; if the first gives up, it goes on."""
    journal_id = await make(conn)
    transaction = rival.transaction()
    await transaction.start()
    await advance(rival, [Move(journal_id, None, (1, 100), (1, 400), 1)])
    second = asyncio.create_task(advance(conn, [Move(journal_id, None, (1, 100), (1, 300), 1)]))
    await asyncio.wait([second], timeout=0.1)
    await (transaction.commit() if is_committed else transaction.rollback())
    if is_committed:
        with pytest.raises(PositionMoved):
            await second
    else:
        await second
    assert (await read(conn, journal_id)).byte_offset == (400 if is_committed else 300)


async def test_a_journal_is_finished_only_where_it_ends(conn: Connection) -> None:
    """P4: not at a position that somebody has moved."""
    journal_id = await make(conn)
    with pytest.raises(PositionMoved):
        await finish(conn, journal_id, START)
    await finish(conn, journal_id, (1, 100))
    assert (await read(conn, journal_id)).is_finished


@pytest.mark.parametrize(
    ("journals", "through_ms"),
    [
        ([(100, False)], 100),
        ([(100, True)], 100),
        ([(100, True), (300, True)], 300),
        ([(100, True), (300, False)], 300),
        ([(100, False), (300, True)], 100),
        ([(100, False), (300, False)], 100),
        ([(300, True), (0, False)], 0),
        ([(300, True), (0, True)], 300),
    ],
)
async def test_a_worker_is_drained_through_what_all_its_journals_say(
    conn: Connection, journals: list[tuple[int, bool]], through_ms: int
) -> None:
    """A finished journal vouches through its last record, an unfinished one holds the worker back, others do not count."""
    for watermark_ms, is_finished in journals:
        await make(conn, watermark_ms, is_finished=is_finished)
    await make(conn, 50, worker=1)
    assert await vouched_through(conn, [(0, 0), (0, 2), (1, 0)]) == {(0, 0): through_ms}
