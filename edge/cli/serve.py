"""`clickedge serve`: the whole node."""

import asyncio
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import click
import structlog

from edge.admin.catalog_apply import ApplyResult, apply_if_new
from edge.catalog_follower import SNAPSHOT, read_snapshot
from edge.cli.apply import entry_of, read_catalog_text
from edge.cli.node_options import node_options
from edge.logs import configure_logs
from edge.node import ADMIN_TOKEN_FILE
from edge.settings import Settings, load_settings
from edge.stream_settings import refuse_unsynced
from edge.supervisor import Supervisor
from edge.systemd import HandedOver, Notifier, take_notifier, take_sockets
from edge.tracking.catalog import Catalog
from storage.postgres.audit import add_entry
from storage.postgres.connection import Connection, connect

_ANYWHERE = ("0.0.0.0", "::", "")


@click.command()
@node_options
@click.option("--apply", "catalog_file", help="A catalog file to apply when it differs from the one applied last.")
def serve(config: Path | None, catalog_file: str | None, **flags: str | None) -> None:
    """Answer clicks and postbacks until SIGTERM."""
    settings = load_settings(os.environ, config, flags)
    text = read_catalog_text(catalog_file) if catalog_file else None
    configure_logs("supervisor")
    given, notifier = take_sockets(os.environ), take_notifier(os.environ)
    asyncio.run(_serve(settings, text, "stdin" if catalog_file == "-" else catalog_file or "", given, notifier))


async def _serve(
    settings: Settings, catalog_text: str | None, catalog_file: str, given: HandedOver, notifier: Notifier
) -> None:
    async def prepare(url: str) -> None:
        if catalog_text is None:
            return
        conn = await connect(url)
        try:
            result = await apply_and_write(conn, catalog_text, catalog_file)
        finally:
            await conn.close()
        if result:
            structlog.get_logger().info("catalog_applied", file=catalog_file, revision=result.revision)

    await refuse_unsynced(settings)
    supervisor = Supervisor(settings, prepare, given, notifier)
    running = asyncio.create_task(supervisor.run())
    ready = asyncio.create_task(supervisor.is_ready.wait())
    await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        _print(await _welcome(supervisor, settings))
    ready.cancel()
    await running


def _print(text: str) -> None:
    """On stdout, as a log line is written: a full disk or a closed pipe behind it is no reason to stop serving."""
    with suppress(OSError):
        if sys.stdout:  # else descriptor 1 is another file's
            os.write(sys.stdout.fileno(), f"{text}\n".encode("utf-8", "backslashreplace"))


async def apply_and_write(conn: Connection, text: str, file: str) -> ApplyResult | None:
    """`apply_if_new`, and right afterwards its entry in the audit log."""
    result = await apply_if_new(conn, text, file)
    if result and (entry := entry_of(result, "serve")):
        await add_entry(conn, entry)
    return result


async def _welcome(supervisor: Supervisor, settings: Settings) -> str:
    """What to try first."""
    command, data_dir = shlex.quote(sys.argv[0]), f"--data-dir {shlex.quote(settings.data_dir)}"
    public, admin = _origin(supervisor.public_address), _origin(supervisor.admin_address)
    if settings.tls_cert:
        public = public.replace("http:", "https:")
    lines = ["", "ClickEdge is up.", ""]
    catalog = await read_snapshot(settings.data_path / SNAPSHOT, Catalog.empty())
    offer_ids = sorted(map(int, catalog.bodies("offers")))
    aff_ids = sorted(map(int, catalog.bodies("partners")))
    if offer_ids and aff_ids:
        lines += [
            f"  click     {public}/aff_c?offer_id={offer_ids[0]}&aff_id={aff_ids[0]}&aff_sub=hello",
            f"  postback  {public}/aff_lsr?transaction_id=TRANSACTION_ID&amount=49.90",
            "            (the id is in the address that the click leads to)",
        ]
    else:
        lines.append(f"  the catalog is empty: {command} apply FILE {data_dir}")
    lines += [
        f"  explain   {command} explain TRANSACTION_ID {data_dir}",
        f"  console   {admin}/",
        f"            (log in with the API key {_admin_token_place(settings)})",
        f"  admin     {admin}/api/docs  {admin}/metrics  {admin}/readyz",
        "",
    ]
    return "\n".join(lines)


def _admin_token_place(settings: Settings) -> str:
    """Where the first API key is; never the key itself."""
    return "of EDGE_ADMIN_TOKEN" if settings.admin_token else f"in {settings.data_path / ADMIN_TOKEN_FILE}"


def _origin(address: tuple[str, int]) -> str:
    host, port = address
    if host in _ANYWHERE:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
