"""`clickedge drain`: from the stream into Postgres, on a machine of its own."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from edge.errors import UserError
from edge.logs import configure_logs
from edge.settings import Settings, load_settings
from edge.stream_settings import refuse_unsynced
from edge.supervisor_crew import Crew

NO_NODE = "0"
"""A drain mints no ids, so it needs no number of its own."""


@click.command()
@click.option("--drains", help="Processes (EDGE_DRAINS).")
@click.option("--database", "database_url", help="PostgreSQL (EDGE_DATABASE_URL).")
@click.option("--stream", "stream_url", help="NATS servers (EDGE_STREAM_URL).")
@click.option("--allow-unsynced-stream", is_flag=True, default=None, help="Read from servers that acknowledge before they sync.")
@click.option("--data-dir", help="For locks; no journals (EDGE_DATA_DIR).")
@click.option("--admin-host", help="Where /metrics is (EDGE_ADMIN_HOST).")
@click.option("--admin-port", help="Where /metrics is (EDGE_ADMIN_PORT).")
@click.option("--config", type=click.Path(path_type=Path), help="Settings as TOML.")
def drain(config: Path | None, **flags: Any) -> None:
    """Store what comes through the stream until SIGTERM; several share the partitions, wherever they run."""
    settings = load_settings(os.environ, config, {**flags, "node_id": NO_NODE})
    for name, value in (("STREAM_URL", settings.stream_url), ("DATABASE_URL", settings.database_url)):
        if not value:
            raise UserError(f"EDGE_{name}: not set; `clickedge drain` stores what comes through a stream into a database")
    if not settings.drains:
        raise UserError("EDGE_DRAINS: 0 is not allowed for `clickedge drain`; allowed: 1 to 16")
    configure_logs("supervisor")
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    await refuse_unsynced(settings)
    await Crew(settings, "drain", settings.drains).run()
