"""Requests of drains to have events sent again: for whoever has the journal; nobody answers them."""

from collections.abc import Callable
from uuid import UUID

import msgspec
import nats.errors
from nats.aio.msg import Msg

from storage.stream.connection import StreamConnection
from storage.stream.servers import StreamAway
from storage.stream.shipments import RESEND, Resend, decode_resend, encode

MOST = 1000
"""Requests kept until they are looked at; drains ask again."""
AT_ONCE = 10
EVERY_S = 60.0
"""So often one journal is sent again at once, and then: a gap in each partition takes a few, who asks for ever gets no more."""


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
        if (known is None or request.place < known.place) and len(self._requests) < MOST:
            self._requests[request.journal_id] = request
            self._wake()


class Allowance:
    """How often journals are sent again: without a bound a drain's word could keep a shipper from all that is new.

    A drain that is far behind asks too, until it reads what it was sent; so do many at once.
    """

    def __init__(self) -> None:
        self._free_s: dict[UUID, float] = {}
        """When each journal's allowance will be whole again."""

    def take(self, journal_id: UUID, now_s: float) -> bool:
        """Whether that journal may be sent again now; if so, that is counted."""
        self._free_s = {one: free_s for one, free_s in self._free_s.items() if free_s > now_s}
        free_s = self._free_s.get(journal_id, now_s) + EVERY_S
        if free_s - now_s > AT_ONCE * EVERY_S:
            return False
        self._free_s[journal_id] = free_s
        return True


async def ask_to_resend(connection: StreamConnection, request: Resend) -> None:
    """Ask for it; whether anybody heard is not known. StreamAway: the connection is gone."""
    try:
        await connection.client.publish(RESEND, encode(request))
    except (nats.errors.Error, OSError) as error:
        raise StreamAway(f"the stream is gone: {error!r}") from error
