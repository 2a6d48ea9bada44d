"""`clickedge import`: what another tracker has, brought over; and files of conversions, costs and contacts."""

import click

from edge.cli.lazy import LazyGroup

_COMMANDS = {
    "catalog": "edge.cli.import_catalog:import_catalog",
    "clicks": "edge.cli.import_clicks:import_clicks",
    "contacts": "edge.cli.import_tables:import_contacts",
    "conversions": "edge.cli.import_tables:import_conversions",
    "costs": "edge.cli.import_tables:import_costs",
}


@click.group(name="import", cls=LazyGroup, where=_COMMANDS)
def imports() -> None:
    """Take in files: another tracker's catalog and clicks (docs/moving.md); conversions, costs, contacts (docs/imports.md)."""
