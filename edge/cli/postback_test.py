"""`clickedge postback-test`: what a postback would come to, or how a partner answers a sample; nothing is recorded."""

import asyncio
import os
from pathlib import Path

import click

from edge.admin.postback_trial import read_address, read_target, send_sample, tell, tell_sample, try_postback
from edge.cli.database import database_options, run_connected
from edge.errors import UserError
from edge.settings import load_settings
from storage.postgres.connection import resolve_url


@click.command("postback-test")
@click.argument("url")
@click.option("--data", default=None, help="The body, if it is a POST: a form, or a flat JSON object.")
@click.option("--authorization", default="", help="The Authorization header, where a vendor's form has one.")
@click.option("--from-ip", default="127.0.0.1", show_default=True, help="The address that the postback comes from.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings as TOML, as for serve.")
@database_options
def postback_test(
    url: str,
    data: str | None,
    authorization: str,
    from_ip: str,
    config: Path | None,
    data_dir: Path,
    database: str | None,
) -> None:
    """Try a postback's URL without recording anything.

    An advertiser's, in any dialect, is judged as it would be now; its host does not matter. A URL with {macros} is a
    partner's: a sample is sent there, and the answer shown.
    """
    settings = load_settings(os.environ, config, {"data_dir": data_dir, "database_url": database})
    if "{" in url:
        lines = tell_sample(asyncio.run(send_sample(url, settings)))
    else:
        read_target(url, data)
        try:
            read_address(from_ip)
        except UserError as error:
            raise UserError(f"--from-ip: {error}") from error
        database_url = resolve_url(settings.database_url, settings.data_path)
        tried = run_connected(
            database_url,
            "postback-test",
            lambda conn: try_postback(conn, settings, url, data, authorization, from_ip),
        )
        lines = tell(tried)
    for line in lines:
        click.echo(line)
