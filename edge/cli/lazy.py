"""A group whose commands are imported when they are asked for: `explain` does not wait for what `serve` needs."""

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """`where`: each command's `module:name`."""

    def __init__(self, *arguments: Any, where: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._where = where

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._where)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._where:
            return None
        module, _, name = self._where[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command
