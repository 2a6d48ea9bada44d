"""`clickedge import`: what another tracker has, brought over."""

import click

from edge.cli.lazy import LazyGroup

_COMMANDS = {
    "catalog": "edge.cli.import_catalog:import_catalog",
    "clicks": "edge.cli.import_clicks:import_clicks",
}


@click.group(name="import", cls=LazyGroup, where=_COMMANDS)
def imports() -> None:
    """Move in from another tracker: its catalog, then its open clicks (docs/moving.md)."""
