"""Settings that are allowed one by one, and dangerous as they stand together or where they stand."""

import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from edge.doctor.findings import Finding, fail, ok, warn
from edge.doctor.installation import Installation
from edge.settings import Settings

LONG_SECRET = 32
WIDEST_PREFIX = {4: 8, 6: 16}
_LOCAL_NAMES = {"localhost", ""}


def check_settings(found: Installation) -> Iterator[Finding]:
    """Combinations; the faults that stop a start are told before anything is looked at."""
    settings = found.settings
    faults = [*_doors(settings), *_durability(settings), *_secrets(settings)]
    yield from faults or [ok("settings", "all are allowed, and none is dangerous")]


def check_private_files(found: Installation) -> Iterator[Finding]:
    """Files that hold a secret, and who else may read or replace them."""
    open_files = [path for path in _private_files(found) if _mode(path) & 0o077]
    for path in open_files:
        yield fail("secrets", f"{path}: others may read it (mode {_mode(path):04o})", f"chmod 600 {path}")
    for path in (found.data_dir, *filter(Path.is_dir, (found.data_dir / "journal", found.data_dir / "ids"))):
        if path.is_dir() and _mode(path) & 0o022:
            open_files.append(path)
            yield fail("secrets", f"{path}: others may write there (mode {_mode(path):04o})", f"chmod go-w {path}")
    if not open_files:
        yield ok("secrets", "files with secrets are closed to other users")


def _doors(settings: Settings) -> Iterator[Finding]:
    if not is_loopback(settings.admin_host) and not settings.trusted_proxies:
        yield warn(
            "settings",
            f"EDGE_ADMIN_HOST is {settings.admin_host} with no proxy named: API keys and reports cross the net in clear",
            "keep it at 127.0.0.1, or put a proxy with TLS before it and name that in EDGE_TRUSTED_PROXIES",
        )
    for network in settings.trusted_networks:
        if network.prefixlen == 0:
            yield fail(
                "settings",
                f"EDGE_TRUSTED_PROXIES has {network}: any client chooses the address it is recorded with",
                "name the proxies' own addresses",
            )
        elif network.prefixlen < WIDEST_PREFIX[network.version]:
            yield warn("settings", f"EDGE_TRUSTED_PROXIES has {network}, which is very wide", "name the proxies' own")
    for network in settings.postback_networks:
        if network.prefixlen < WIDEST_PREFIX[network.version]:
            yield warn(
                "settings",
                f"EDGE_POSTBACK_ALLOW has {network}: partners' addresses may lead to this machine's own services",
                "name only the networks that partners' test servers are in",
            )
    if not settings.lane:
        yield warn("settings", "EDGE_LANE is off: each request costs several times as much", "set it to on")


def _durability(settings: Settings) -> Iterator[Finding]:
    if settings.conversion_durability == "process":
        yield warn(
            "settings",
            "EDGE_CONVERSION_DURABILITY is process: a power cut loses conversions that were answered with success",
            "set it to disk, unless advertisers repeat their postbacks",
        )
    if settings.fsync_interval_ms > 1000:
        yield warn(
            "settings",
            f"EDGE_FSYNC_INTERVAL_MS is {settings.fsync_interval_ms}: so much of the clicks a power cut costs",
            "50 to 200 is usual",
        )
    if settings.journal_keep_s < 600:
        yield warn(
            "settings",
            f"EDGE_JOURNAL_KEEP is {settings.journal_keep_s} s: a restored database cannot be caught up from the journal",
            "keep it longer than the time between two backups",
        )


def _secrets(settings: Settings) -> Iterator[Finding]:
    named = [("EDGE_SECRET", secret) for secret in settings.secrets]
    named += [("EDGE_ADMIN_TOKEN", settings.admin_token)] if settings.admin_token else []
    for name, secret in named:
        if len(secret) < LONG_SECRET or len(set(secret)) < 8:
            yield warn(
                "settings",
                f"{name} is short or repeats itself ({len(secret)} characters): it may be guessed",
                "make one with: openssl rand -hex 32"
                + (" (the old one stays behind it, after a comma)" if name == "EDGE_SECRET" else ""),
            )
    if settings.database_url and _is_in_clear(settings.database_url):
        yield warn(
            "settings",
            "EDGE_DATABASE_URL leads to another machine, and does not insist on TLS",
            "add ?sslmode=verify-full (or require), or keep the way to it private",
        )


def _is_in_clear(url: str) -> bool:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    hosts = [part.rpartition(":")[0] or part for part in parts.netloc.rpartition("@")[2].split(",")]
    hosts = query.get("host", [host.strip("[]") for host in hosts])
    is_elsewhere = any(not host.startswith("/") and not is_loopback(host) for host in hosts)
    return is_elsewhere and query.get("sslmode", ["prefer"])[0] in ("disable", "allow", "prefer")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address or name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in _LOCAL_NAMES


def _private_files(found: Installation) -> Iterator[Path]:
    settings = found.settings
    names = ("secret", "console.secret", "admin.token", "database.url", "catalog.snapshot", "postgres/password")
    candidates = [found.data_dir / name for name in names]
    candidates += [Path(path) for path in (settings.tls_key, settings.stream_credentials) if path]
    if found.config_file and _holds_secret(found.config_file):
        candidates.append(found.config_file)
    for path in candidates:
        try:
            path.stat()
        except OSError:
            continue
        yield path


def _holds_secret(config_file: Path) -> bool:
    text = config_file.read_text("utf-8")
    return any(name in text for name in ("secret", "admin_token", "database_url", "stream_url"))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
