"""The lease of a node id."""

import asyncio
from uuid import uuid4

import pytest

from storage.errors import DatabaseUnusable
from storage.postgres.connection import connect
from storage.postgres.nodes import claim_node


async def test_a_restart_renews_its_own_lease(database: str) -> None:
    """The same data dir may claim its node as often as it likes; the secrets it has now are remembered."""
    connection, mine = await connect(database), uuid4()
    await claim_node(connection, node_id=3, data_dir_id=mine, secret_prints=["a"])
    await claim_node(connection, node_id=3, data_dir_id=mine, secret_prints=["b"])
    rows = await connection.fetch("SELECT node_id, data_dir_id, secret_prints FROM nodes")
    assert [tuple(row) for row in rows] == [(3, mine, ["b"])]
    await connection.close()


async def test_another_data_dir_cannot_take_a_leased_node(database: str) -> None:
    """Two machines with one node id: the second stops and is told how to release the first."""
    connection = await connect(database)
    await claim_node(connection, node_id=3, data_dir_id=uuid4(), secret_prints=["a"])
    with pytest.raises(DatabaseUnusable, match="DELETE FROM nodes WHERE node_id = 3"):
        await claim_node(connection, node_id=3, data_dir_id=uuid4(), secret_prints=["a"])
    await claim_node(connection, node_id=3, data_dir_id=uuid4(), secret_prints=["a"], replace=True)
    await connection.close()


async def test_nodes_share_a_secret(database: str) -> None:
    """A node that could not verify any other node's ids stops; one secret in common is enough."""
    connection = await connect(database)
    await claim_node(connection, node_id=0, data_dir_id=uuid4(), secret_prints=["a", "b"])
    with pytest.raises(DatabaseUnusable, match=r"no secret in common .*\(0\)"):
        await claim_node(connection, node_id=1, data_dir_id=uuid4(), secret_prints=["c"])
    await claim_node(connection, node_id=1, data_dir_id=uuid4(), secret_prints=["c", "b"])
    await connection.close()


async def test_of_two_claims_at_once_one_wins(database: str) -> None:
    """The race for one node id has exactly one winner."""
    connections = [await connect(database) for _ in range(4)]
    claims = [claim_node(each, node_id=0, data_dir_id=uuid4(), secret_prints=["a"]) for each in connections]
    results = await asyncio.gather(*claims, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["DatabaseUnusable"] * 3 + ["NoneType"]
    await asyncio.gather(*(connection.close() for connection in connections))
