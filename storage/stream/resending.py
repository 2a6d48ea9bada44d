"""Requests of drains to have events sent again: for whoever has the journal; nobody answers them."""

from collections.abc import Callable

import msgspec
import nats.errors
from nats.aio.msg import Msg

from storage.stream.connection import StreamConnection
from storage.stream.servers import StreamAway
from storage.stream.shipments import RESEND, Resend, decode_resend, encode

MOST = 1000
"""Requests kept until they are looked at; drains ask again."""
MAX_PLACE = 1 << 62


class Resends:
    """The requests that came over one connection."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._requests: dict[bytes, Resend] = {}

    @classmethod
    async def listen(cls, connection: StreamConnection, wake: Callable[[], None]) -> "Resends":
        """Begin to listen; `wake` is called for each request. StreamAway: the connection is gone."""
        resends = cls(wake)
        try:
            await connection.client.subscribe(RESEND, cb=resends._note)
        except (nats.errors.Error, OSError) as error:
            raise StreamAway(f"the stream is gone: {error!r}") from error
        return resends

    def take(self) -> list[Resend]:
        """Of each journal the request that goes back furthest; then they are forgotten."""
        requests, self._requests = self._requests, {}
        return list(requests.values())

    async def _note(self, message: Msg) -> None:
        try:
            request = decode_resend(message.data)
        except msgspec.MsgspecError:
            return
        known = self._requests.get(request.journal_id)
        segment, offset = request.place
        if len(request.journal_id) != 16 or not (0 < segment <= MAX_PLACE and 0 <= offset <= MAX_PLACE):
            return
        if (known is None or request.place < known.place) and len(self._requests) < MOST:
            self._requests[request.journal_id] = request
            self._wake()


async def ask_to_resend(connection: StreamConnection, request: Resend) -> None:
    """Ask for it; whether anybody heard is not known. StreamAway: the connection is gone."""
    try:
        await connection.client.publish(RESEND, encode(request))
    except (nats.errors.Error, OSError) as error:
        raise StreamAway(f"the stream is gone: {error!r}") from error
