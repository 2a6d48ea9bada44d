"""`clickedge import`: what another tracker has, brought over."""

import importlib

import click

_COMMANDS = {
    "catalog": "edge.cli.import_catalog:import_catalog",
    "clicks": "edge.cli.import_clicks:import_clicks",
}


class _LazyGroup(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(name="import", cls=_LazyGroup)
def imports() -> None:
    """Move in from another tracker: its catalog, then its open clicks (docs/moving.md)."""
