"""`clickedge doctor`: looks at everything that a node needs, changes nothing, and says what to do."""

import os
import sys
from collections import Counter
from pathlib import Path

import click
import msgspec
import orjson
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edge.cli.node_options import node_options
from edge.doctor.examination import examine
from edge.doctor.findings import Finding, State
from edge.settings import load_settings

_COLOURS: dict[State, str] = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}
_WIDTH_OF_A_PIPE = 160


@click.command()
@node_options
@click.option("--json", "as_json", is_flag=True, help="All findings as JSON.")
@click.option("--strict", is_flag=True, help="End with code 1 for warnings too.")
def doctor(config: Path | None, *, as_json: bool, strict: bool, **flags: str | None) -> None:
    """Look at settings, disk, clock, kernel, files, database and journal, and say what to do. Give it what serve is given.

    Works beside a running serve, before the first start, and without a database. Nothing is changed.
    Exit code 0: ready (warnings or not); 1: something fails; 2: settings that serve would refuse.
    """
    findings = examine(load_settings(os.environ, config, flags), config)
    counts = Counter(finding.state for finding in findings)
    if as_json:
        data = {"findings": msgspec.to_builtins(findings), "counts": {state: counts[state] for state in _COLOURS}}
        click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2))
    else:
        _print(findings, counts)
    sys.exit(1 if counts["fail"] or (strict and counts["warn"]) else 0)


def _print(findings: list[Finding], counts: Counter[State]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_OF_A_PIPE)
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        state = Text(finding.state, _COLOURS[finding.state])
        table.add_row(state, Text(finding.name, no_wrap=True), Text(finding.found))
        if finding.advice:
            table.add_row("", "", Padding(Text(f"→ {finding.advice}", "cyan"), (0, 0, 0, 2)))
    console.print(table)
    said = [f"{counts[state]} {state}" for state in _COLOURS if counts[state]]
    console.print(f"\n{', '.join(said)}")
