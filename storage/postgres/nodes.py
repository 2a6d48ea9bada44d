"""The lease of a node id: two machines that mint with the same id would mint the same click ids."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from storage.errors import DatabaseUnusable


async def claim_node(
    connection: Any, *, node_id: int, data_dir_id: UUID, secret_prints: Sequence[str], replace: bool = False
) -> None:
    """Lease `node_id` to this data dir, or renew the lease; `replace` takes it over from another data dir.

    DatabaseUnusable when another data dir has it, or when no secret is shared with the other nodes: postbacks for
    their clicks, which may arrive here, would be taken for forged.
    """
    async with connection.transaction():
        await connection.execute("LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE")
        rows = await connection.fetch("SELECT node_id, data_dir_id, secret_prints, leased_at FROM nodes")
        others = [row for row in rows if row["data_dir_id"] != data_dir_id and row["node_id"] != node_id]
        for row in rows:
            if row["node_id"] == node_id and row["data_dir_id"] != data_dir_id and not replace:
                raise DatabaseUnusable(_taken(row))
        if others and not any(set(row["secret_prints"]) & set(secret_prints) for row in others):
            raise DatabaseUnusable(_no_secret_in_common(others))
        await connection.execute(
            "INSERT INTO nodes (node_id, data_dir_id, secret_prints, leased_at) VALUES ($1, $2, $3, now())"
            " ON CONFLICT (node_id) DO UPDATE SET data_dir_id = excluded.data_dir_id,"
            " secret_prints = excluded.secret_prints, leased_at = excluded.leased_at",
            node_id,
            data_dir_id,
            list(secret_prints),
        )


async def hand_over(connection: Any, former: UUID, data_dir_id: UUID) -> None:
    """Lease what `former` has to this data dir: it was restored from that one's backup."""
    await connection.execute("UPDATE nodes SET data_dir_id = $2 WHERE data_dir_id = $1", former, data_dir_id)


def _taken(row: Any) -> str:
    return (
        f"node id {row['node_id']} is leased to another data dir ({row['data_dir_id']}, last started"
        f" {row['leased_at']:%Y-%m-%d %H:%M} UTC): give this machine an EDGE_NODE_ID of its own or, if that one is gone"
        f" for good, release it with DELETE FROM nodes WHERE node_id = {row['node_id']}"
    )


def _no_secret_in_common(others: Sequence[Any]) -> str:
    ids = ", ".join(str(row["node_id"]) for row in others)
    return (
        f"EDGE_SECRET has no secret in common with the database's other nodes ({ids}): set the same one here;"
        " rows of machines that are gone for good are released with DELETE FROM nodes WHERE node_id = …"
    )
