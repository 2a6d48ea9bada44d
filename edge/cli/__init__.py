"""The `clickedge` command: each subcommand parses, calls one function, prints. Bad input: one clear line, code 2."""

import sys
from importlib.metadata import version

import click

from edge.cli.lazy import LazyGroup
from edge.errors import UserError
from storage.errors import StorageError

_COMMANDS = {
    "apply": "edge.cli.apply:apply",
    "backup": "edge.cli.backup:backup",
    "cohorts": "edge.cli.cohorts:cohorts",
    "conversion": "edge.cli.conversion:conversion",
    "drain": "edge.cli.drain:drain",
    "doctor": "edge.cli.doctor:doctor",
    "audit": "edge.cli.audit:audit",
    "erase": "edge.cli.erase:erase_command",
    "explain": "edge.cli.explain:explain",
    "export": "edge.cli.export:export",
    "import": "edge.cli.imports:imports",
    "journal": "edge.cli.journal:journal",
    "key": "edge.cli.key:key",
    "month": "edge.cli.month:month",
    "postback": "edge.cli.postback:postback",
    "postback-test": "edge.cli.postback_test:postback_test",
    "psql": "edge.cli.psql:psql",
    "replay": "edge.cli.replay:replay_command",
    "report": "edge.cli.report:report",
    "restore": "edge.cli.backup:restore",
    "serve": "edge.cli.serve:serve",
    "ship": "edge.cli.ship:ship",
    "stream": "edge.cli.stream:stream",
    "statement": "edge.cli.statement:statement",
}


@click.group(cls=LazyGroup, where=_COMMANDS)
@click.version_option(version("clickedge"), prog_name="clickedge")
def cli() -> None:
    """A tracking edge for performance marketing."""


def main() -> None:
    """Run the command that the arguments name."""
    try:
        cli(prog_name="clickedge")
    except (UserError, StorageError) as error:
        click.echo(f"clickedge: {error}", err=True)
        sys.exit(2)
