"""The stream's servers as configured, and whether they sync what they acknowledge. Knows nothing of their protocol."""

import asyncio
import http.client
import json
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from storage.errors import StorageError

MONITOR_S = 2.0
SILENT = "does not say"


class StreamAway(StorageError):
    """Nobody answers there just now, or no majority of the servers: try again."""


class StreamUnusable(StorageError):
    """The servers are there and do not fit: trying again changes nothing."""


class StreamOptions(NamedTuple):
    """Where the stream is and how it is made. `credentials`: a file's path or empty; `max_bytes` 0: no limit of ours."""

    url: str
    credentials: str = ""
    replicas: int = 3
    max_bytes: int = 0
    monitor_port: int = 8222

    def __repr__(self) -> str:
        """Without the password: it ends up in tracebacks."""
        return f"StreamOptions({','.join(url.rpartition('@')[2] for url in server_urls(self.url))})"


def server_urls(text: str) -> list[str]:
    """The servers in EDGE_STREAM_URL, each with the scheme, user and password of the first."""
    parts = [part.strip() for part in text.split(",")]
    scheme = parts[0].partition("://")[0] if "://" in parts[0] else "nats"
    user = "".join(parts[0].rpartition("://")[2].rpartition("@")[:2])
    return [f"{scheme}://{user}{part.rpartition('://')[2].rpartition('@')[2]}" for part in parts]


def user_in(url: str) -> tuple[str | None, str | None]:
    """User and password of a server's URL, which may be percent-encoded there; without a password, a token."""
    parts = urlsplit(url)
    return (
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


def server_hosts(options: StreamOptions) -> list[str]:
    """The servers' hosts, each once."""
    return list(dict.fromkeys(urlsplit(url).hostname or "" for url in server_urls(options.url)))


async def unsynced_servers(options: StreamOptions) -> list[str]:
    """Of the configured servers those that acknowledge before they sync, and those that will not say, each with why."""
    hosts = server_hosts(options)
    faults = await asyncio.gather(*(asyncio.to_thread(_sync_fault, host, options.monitor_port) for host in hosts))
    return [fault for fault in faults if fault]


def _sync_fault(host: str, port: int) -> str:
    asking = http.client.HTTPConnection(host, port, timeout=MONITOR_S)
    try:
        asking.request("GET", "/varz")
        config = (json.load(asking.getresponse()).get("jetstream") or {}).get("config")
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return f"{host}:{port} {SILENT} ({type(error).__name__})"
    finally:
        asking.close()
    if not config:
        # NATS switches it off when the disk is full, too: then nothing is acknowledged, as by a server that is away.
        return f"{host}:{port} {SILENT} (it has no JetStream)"
    return "" if config.get("sync_always") else f"{host}:{port} has sync_interval {config.get('sync_interval', 0) // 10**9} s"
