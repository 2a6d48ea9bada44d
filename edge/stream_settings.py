"""The stream as the settings have it, for whoever connects to it or is asked about it."""

import structlog

from edge.errors import UserError
from edge.logs import RateLimited
from edge.settings import Settings
from storage.stream.servers import SILENT, StreamAway, StreamOptions, StreamUnusable, server_hosts, unsynced_servers

SHIP_LOCK = "ship.lock"
"""In the data dir, held by whoever ships its journals."""

quietly = RateLimited(structlog.get_logger(), 60.0)


def stream_options(settings: Settings) -> StreamOptions:
    """What the settings say of the stream."""
    return StreamOptions(
        settings.stream_url,
        settings.stream_credentials,
        settings.stream_replicas,
        settings.stream_max_bytes,
        settings.stream_monitor_port,
    )


async def is_synced(settings: Settings) -> bool:
    """Whether all servers sync what they acknowledge; False only where that is allowed.

    A minority may not say: who is away acknowledges nothing, and without one who syncs there is no majority.
    StreamUnusable: one of them does not sync. StreamAway: too many do not say, which may be so for a moment only.
    """
    options = stream_options(settings)
    faults = await unsynced_servers(options)
    if not faults:
        return True
    if all(SILENT in fault for fault in faults) and len(faults) * 2 < len(server_hosts(options)):
        quietly.warning("stream_server_silent", servers=faults)
        return True
    if settings.allow_unsynced_stream:
        quietly.warning("stream_unsynced", servers=faults)
        return False
    raise (StreamAway if all(SILENT in fault for fault in faults) else StreamUnusable)(_unsynced(faults))


async def refuse_unsynced(settings: Settings) -> None:
    """Before anything starts: UserError when the stream would lose what it acknowledges. Away, it may still be right."""
    if not settings.stream_url:
        return
    try:
        await is_synced(settings)
    except StreamUnusable as error:
        raise UserError(str(error)) from error
    except StreamAway as error:
        quietly.warning("stream_away", error=str(error))


def _unsynced(faults: list[str]) -> str:
    if all(SILENT in fault for fault in faults):
        return (
            "the stream's servers do not say whether they sync what they acknowledge, which must be known of most of them:"
            f" {'; '.join(faults)}. Are they up, and is EDGE_STREAM_MONITOR_PORT theirs and open to this machine?"
        )
    return (
        f"the stream may lose acknowledged events in a power cut: {'; '.join(faults)}. Set `sync_interval: always` in each"
        " server's jetstream section, or start with --allow-unsynced-stream (EDGE_ALLOW_UNSYNCED_STREAM=on)"
    )
