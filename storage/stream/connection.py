"""The stream itself: reached, made where it is missing, and asked whether it syncs what it acknowledges."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nkeys
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from storage.stream.servers import StreamAway, StreamOptions, StreamUnusable, server_urls, user_in
from storage.stream.shipments import STREAM, SUBJECT

CONNECT_S = 2.0
PING_S = 2
API_S = 2.0
"""Of a request: without a leader nobody answers it, and it is to be asked again once there is one."""
NOBODY_LEADS = 503
MOST_FAULTS = 100


class StreamConnection:
    """One connection. It does not reconnect: whoever has it begins anew, since what was under way is not known."""

    def __init__(self, client: Client, closed: asyncio.Event, faults: list[Exception]) -> None:
        self.client = client
        self._faults = faults
        self.jetstream: JetStreamContext = client.jetstream(timeout=API_S)
        self.closed = closed
        """Set when the connection is gone."""

    @property
    def refusal(self) -> str:
        """Why the stream did not take a message, if so: nats-py tells that to nobody else, not to who waits for it."""
        return next((str(fault.description) for fault in self._faults if isinstance(fault, APIError)), "")

    async def ensure_stream(self, options: StreamOptions) -> str:
        """Make the stream if it is missing, mend one that somebody made otherwise; when it was made, as ISO text.

        StreamUnusable: there are too few servers for so many replicas. StreamAway: try again.
        """
        try:
            try:
                info = await self.jetstream.stream_info(STREAM)
            except NotFoundError:
                info = await self.jetstream.add_stream(_config_of(options))
            if not _keeps_all(info.config) or _sizes(info.config) != _sizes(_config_of(options)):
                info = await self.jetstream.update_stream(_config_of(options))
        except APIError as error:
            if error.code == NOBODY_LEADS and "peers" not in (error.description or ""):
                raise StreamAway(f"the stream has no leader: {error.description}") from error
            raise StreamUnusable(
                f"the stream cannot be made with EDGE_STREAM_REPLICAS={options.replicas}: {error.description}"
            ) from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise StreamAway(f"the stream does not answer: {error}") from error
        return created_at(info)

    async def find_stream(self) -> str:
        """When the stream was made, as ISO text; nothing is changed. StreamAway: it is not there, which a shipper can mend."""
        try:
            return created_at(await self.jetstream.stream_info(STREAM))
        except NotFoundError as error:
            raise StreamAway("no shipper has made the stream yet") from error
        except (APIError, nats.errors.Error, OSError, TimeoutError) as error:
            raise StreamAway(f"the stream does not answer: {error}") from error

    async def close(self) -> None:
        """Let go; what was not acknowledged stays unknown."""
        await _close(self.client)


class _InClear(nats.errors.Error):
    """The server would go on without TLS."""


class _PrivateClient(Client):
    """nats-py leaves it to the server whether TLS is spoken, tls:// or not; and whoever is on the way can say it for the server."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and not info.get("tls_required"):
            raise _InClear
        await super()._process_info(info, initial_connection=initial_connection)


def created_at(info: StreamInfo) -> str:
    """When a stream was made: what tells it from another of its name."""
    return info.created.isoformat() if info.created else ""


async def connect_stream(options: StreamOptions, name: str, *, inboxes: str = "other") -> StreamConnection:
    """A connection to one of the servers; what it asks is answered below `_INBOX.<inboxes>`.

    StreamAway: none of them answers. StreamUnusable: they do not let us in, or are not to be told who we are.
    """
    closed = asyncio.Event()
    faults: list[Exception] = []

    async def note(error: Exception) -> None:
        if len(faults) < MOST_FAULTS:
            faults.append(error)

    async def end() -> None:
        closed.set()

    servers = server_urls(options.url)
    is_private = servers[0].startswith("tls:")
    client = _PrivateClient() if is_private else Client()
    identity = _identity_in(options)
    try:
        async with asyncio.timeout(CONNECT_S * (len(servers) + 1)):
            await client.connect(
                servers,
                name=name,
                inbox_prefix=f"_INBOX.{inboxes}",
                allow_reconnect=False,
                connect_timeout=int(CONNECT_S),
                ping_interval=PING_S,
                max_outstanding_pings=2,
                **identity,
                tls=ssl.create_default_context() if is_private else None,
                error_cb=note,
                disconnected_cb=end,
                closed_cb=end,
            )
    except _InClear as error:
        raise StreamUnusable("the stream's server offers no TLS, and EDGE_STREAM_URL says tls://") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        if "authorization" in str(error).lower():
            raise StreamUnusable(f"the stream's servers refuse our credentials: {error}") from error
        raise StreamAway(f"no server of the stream answers: {faults[-1] if faults else error!r}") from error
    finally:
        if not client.is_connected:
            await _close(client)
    return StreamConnection(client, closed, faults)


def _identity_in(options: StreamOptions) -> dict[str, Any]:
    """Who we say that we are, as nats-py wants it. StreamUnusable: the credentials file is none."""
    if options.credentials:
        _check_credentials(options.credentials)
        return {"user_credentials": options.credentials}
    user, password = user_in(server_urls(options.url)[0])
    if user is None:
        return {}
    return {"token": user} if password is None else {"user": user, "password": password}


def _check_credentials(path: str) -> None:
    """StreamUnusable: there is no token or no key in it, on which nats-py would stumble in one way or another."""
    try:
        lines = Path(path).read_bytes().splitlines()
        labels = [line.strip(b"-") for line in lines]
        _, key = (lines[labels.index(b"BEGIN " + what) + 1] for what in (b"NATS USER JWT", b"USER NKEY SEED"))
        nkeys.from_seed(bytearray(key)).wipe()
    except (OSError, LookupError, ValueError, nkeys.NkeysError) as error:
        raise StreamUnusable(f"EDGE_STREAM_CREDENTIALS: {path} is no credentials file of NATS") from error


async def _close(client: Client) -> None:
    """Also of one that never came to be connected: its transport must not be left behind."""
    with suppress(nats.errors.Error, OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_S):
            await client.close()
    if transport := getattr(client, "_transport", None):
        transport.close()


def _keeps_all(config: StreamConfig) -> bool:
    """Whether nothing leaves such a stream by age or number, or to make room."""
    limits = (config.max_age, config.max_msgs, config.max_msgs_per_subject)
    is_without_limits = all(limit is None or limit <= 0 for limit in limits)
    return is_without_limits and config.discard == DiscardPolicy.NEW and config.retention == RetentionPolicy.LIMITS


def _sizes(config: StreamConfig) -> tuple[int | None, int | None]:
    return config.max_bytes, config.num_replicas


def _config_of(options: StreamOptions) -> StreamConfig:
    # Nothing leaves by age or to make room: only what Postgres has is purged.
    return StreamConfig(
        name=STREAM,
        subjects=[f"{SUBJECT}.*"],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        storage=StorageType.FILE,
        max_bytes=options.max_bytes or -1,
        num_replicas=options.replicas,
    )


