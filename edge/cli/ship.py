"""`clickedge ship`: a machine's journals into the stream, where `serve` does not do it."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from edge.errors import UserError
from edge.logs import configure_logs
from edge.settings import Settings, load_settings
from edge.stream_settings import SHIP_LOCK, refuse_unsynced
from edge.supervisor_crew import Crew
from storage.files import hold_lock


@click.command()
@click.option("--data-dir", help="Where the journals are (EDGE_DATA_DIR).")
@click.option("--stream", "stream_url", help="NATS servers (EDGE_STREAM_URL).")
@click.option("--allow-unsynced-stream", is_flag=True, default=None, help="Ship to servers that acknowledge before they sync.")
@click.option("--admin-port", help="Where /metrics is (EDGE_ADMIN_PORT).")
@click.option("--config", type=click.Path(path_type=Path), help="Settings as TOML.")
def ship(config: Path | None, **flags: Any) -> None:
    """Ship a data dir's journals to the stream until SIGTERM, `serve` running beside it with EDGE_SHIPPER=off or not."""
    settings = load_settings(os.environ, config, flags)
    if not settings.stream_url:
        raise UserError("EDGE_STREAM_URL: not set; there is nowhere to ship to")
    configure_logs("supervisor")
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    await refuse_unsynced(settings)
    crew = Crew(settings, "shipper", 1)
    _refuse_second(settings)
    await crew.run()


def _refuse_second(settings: Settings) -> None:
    """To say now what its process would say again and again."""
    lock = hold_lock(settings.data_path / SHIP_LOCK)
    if lock is None:
        raise UserError(
            f"EDGE_DATA_DIR: another shipper runs on {settings.data_dir}: `serve` has one unless EDGE_SHIPPER is off"
        )
    os.close(lock)
