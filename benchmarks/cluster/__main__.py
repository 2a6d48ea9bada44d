"""`python -m benchmarks.cluster`: a cluster on this machine to play with, until Ctrl-C. Its data is kept for the next time."""

import argparse
import asyncio
import shlex
import signal
import sys
import tomllib
from pathlib import Path

from benchmarks.cluster.database import DatabaseFailed
from benchmarks.cluster.parts import Parts
from benchmarks.cluster.programs import COMMAND
from benchmarks.nats import NatsFailed
from benchmarks.soak.node import SoakFailed
from storage.errors import StorageError

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Start all, say where they are, wait for Ctrl-C, end all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "cluster", help="of all data (build/cluster)")
    parser.add_argument("--catalog", type=Path, default=ROOT / "examples" / "catalog.toml", help="to apply (the example)")
    arguments = parser.parse_args()
    try:
        asyncio.run(_play(arguments.directory.absolute(), arguments.catalog.absolute()))
    except (SoakFailed, NatsFailed, DatabaseFailed, StorageError) as error:
        print(f"cannot run the cluster: {error}", file=sys.stderr)
        return 1
    return 0


async def _play(directory: Path, catalog: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print("starting three NATS servers, PostgreSQL, two edges and two drains …", flush=True)
    parts = Parts(directory, catalog, settings={})
    starting, stopping = asyncio.create_task(parts.__aenter__()), asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()  # which ends what was started
        await asyncio.wait((starting,))
        return
    starting.result()
    environment = directory / "env"
    environment.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in _settings(parts).items()))
    environment.chmod(0o600)
    print(_welcome(parts, catalog, environment), flush=True)
    await stopping
    print("\nending everything; the data stays in", directory, flush=True)
    await parts.__aexit__()


def _settings(parts: Parts) -> dict[str, str]:
    """For commands: those of the first edge."""
    first = parts.edges[0]
    return {**parts.settings, "EDGE_NODE_ID": str(first.number), "EDGE_DATA_DIR": str(first.data_dir)}


def _welcome(parts: Parts, catalog: Path, environment: Path) -> str:
    """What there is and what to try."""
    items = tomllib.loads(catalog.read_text(encoding="utf-8"))
    offer_id, aff_id = (min(one["id"] for one in items[kind]) for kind in ("offers", "partners"))
    first, second = parts.edges
    before, command = f"(. {shlex.quote(str(environment))};", shlex.quote(str(COMMAND))
    lines = [
        "",
        "The cluster is up.",
        "",
        f"  click at one edge     {first.origin}/aff_c?offer_id={offer_id}&aff_id={aff_id}&aff_sub=hello",
        f"  postback at the other {second.origin}/aff_lsr?transaction_id=TRANSACTION_ID&amount=49.90",
        "                        (the id is in the address that the click leads to)",
        f"  console               {first.admin}/  and  {second.admin}/",
        f"                        (log in with the key in {first.data_dir / 'admin.token'})",
        f"  drains' metrics       {'  '.join(f'{one.admin}/metrics' for one in parts.drains)}",
        f"  the stream            {before} {command} stream)",
        f"  a click's story       {before} {command} explain TRANSACTION_ID)",
        f"  NATS                  {'  '.join(f'http://{one.host}:{one.monitor_port}/' for one in parts.nats.servers)}",
        f'  PostgreSQL            {before} psql "$EDGE_DATABASE_URL")',
        "",
        "  try: kill -9 any of these:",
        *(f"    {server.name:<8} {server.pid}" for server in parts.nats.servers),
        *(f"    {program.name:<8} {program.pid}" for program in parts.programs),
        "",
        f"  logs and data are below {parts.directory}, and stay; Ctrl-C ends everything",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
