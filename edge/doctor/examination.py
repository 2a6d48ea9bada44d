"""All checks, in the order in which a start would meet them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from edge.doctor.catalog import check_catalog
from edge.doctor.clock import Jumps, check_leases, check_synchronised, check_time_zones
from edge.doctor.configuration import check_private_files, check_settings
from edge.doctor.database import check_database
from edge.doctor.disk import check_data_dir, check_filesystem, check_space, check_sync_speed
from edge.doctor.files import check_certificate, check_datacentres, check_geo
from edge.doctor.findings import Finding, fail, hide, ok
from edge.doctor.installation import Installation, look_at
from edge.doctor.journals import Growth, check_backlog
from edge.doctor.machine import check_descriptors, check_kernel, check_memory, check_parsers, check_processors
from edge.doctor.ports import check_ports
from edge.doctor.stream import check_stream, check_undrained, check_unshipped
from edge.settings import Settings
from storage.postgres.connection import CONNECTION_FILE
from storage.stream.servers import server_urls

Check = Callable[[Installation], Iterator[Finding]]
_FIRST: tuple[Check, ...] = (
    check_settings, check_private_files,
    check_data_dir, check_filesystem, check_space, check_sync_speed,
    check_synchronised, check_leases, check_time_zones,
    check_parsers, check_processors, check_memory, check_descriptors, check_kernel, check_ports,
    check_certificate, check_geo, check_datacentres, check_catalog, check_backlog,
    check_undrained, check_unshipped, check_stream,
)  # fmt: skip


def examine(settings: Settings, config_file: Path | None = None) -> list[Finding]:
    """What there is to say of this installation. Nothing is changed, and no secret is in it."""
    found = look_at(settings, config_file)
    jumps, growth = Jumps(), Growth(found)
    findings = [_describe(found)]
    for check in _FIRST:
        findings += _guarded(check, found)
    findings += _guarded(_look_at_database, found)
    for check in (growth.check, jumps.check):
        findings += _guarded(check, found)
    return hide(findings, list(_secrets_of(settings)))


def _describe(found: Installation) -> Finding:
    who = f"process {found.serve_pid}" if found.serve_pid else "it does"
    return ok("serve", f"it runs on {found.data_dir} ({who})" if found.is_running else f"none runs on {found.data_dir}")


def _look_at_database(found: Installation) -> Iterator[Finding]:
    yield from asyncio.run(check_database(found))


def _guarded(check: Check, found: Installation) -> list[Finding]:
    """A check that itself fails is a finding too, and spares the others."""
    findings = []
    try:
        for finding in check(found):
            findings.append(finding)  # noqa: PERF402 - what was found before an error stays
    except Exception as error:
        name = getattr(check, "__name__", "check").removeprefix("check_").replace("_", " ")
        findings.append(fail(name, f"could not be looked at: {type(error).__name__}: {error}", "look at it by hand"))
    return findings


def _secrets_of(settings: Settings) -> Iterator[str]:
    """Everything that must not be printed, as far as it is known here."""
    yield from settings.secrets
    yield settings.admin_token
    urls = [settings.database_url, *server_urls(settings.stream_url)]
    for name in ("secret", "admin.token", CONNECTION_FILE):
        with suppress(OSError, UnicodeDecodeError):
            text = (settings.data_path / name).read_text("utf-8").strip()
            urls.append(text) if name == CONNECTION_FILE else (yield text)
    for url in filter(None, urls):
        with suppress(ValueError):
            password = urlsplit(url).password or parse_qs(urlsplit(url).query).get("password", [""])[0]
            yield password
            yield unquote(password)
