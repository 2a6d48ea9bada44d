"""The options that name a node's settings: `serve` starts with them, `doctor` looks at what would start."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_OPTIONS = (
    click.option("--host", help="Public address (EDGE_HOST)."),
    click.option("--port", help="Public port (EDGE_PORT)."),
    click.option("--admin-host", help="Admin address (EDGE_ADMIN_HOST)."),
    click.option("--admin-port", help="Admin port (EDGE_ADMIN_PORT)."),
    click.option("--workers", help="Edge processes (EDGE_WORKERS)."),
    click.option("--data-dir", help="Journals, embedded database, secrets (EDGE_DATA_DIR)."),
    click.option("--database", "database_url", help="A PostgreSQL instead of the embedded one (EDGE_DATABASE_URL)."),
    click.option("--stream", "stream_url", help="NATS servers for several machines (EDGE_STREAM_URL)."),
    click.option("--allow-unsynced-stream", is_flag=True, default=None, help="EDGE_ALLOW_UNSYNCED_STREAM."),
    click.option("--config", type=click.Path(path_type=Path), help="Settings as TOML."),
)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
