"""The reading end of the stream: one consumer that keeps nothing, begun anew wherever the reader says.

R1  Messages come in the stream's order, those of all partitions that are read together: after one of sequence S nothing
    of S or before is still to come.
R2  What went missing on the way shows in the consumer's own count: StreamAway, and the reader begins anew from what is stored.
R3  Nothing is acknowledged: what is stored Postgres knows.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from storage.errors import StorageError
from storage.stream.shipments import RESEND, STREAM, Resend, encode, subject_of

FETCHED_MESSAGES = 64
"""Of up to 768 KiB: what a fetch may bring into memory at once."""
FORGOTTEN_AFTER_S = 30.0
SILENCE_S = 3.0
"""Each partition has a message a second while any worker runs: after this the server is asked whether it still knows us."""

_ERRORS = (NatsError, OSError, TimeoutError, ConnectionError)


class StreamAway(StorageError):
    """The stream cannot be read just now, or what was read is not whole: begin anew."""


class Message(NamedTuple):
    """One message; `partition` from its subject."""

    sequence: int
    partition: int
    data: bytes


class StreamState(NamedTuple):
    """What the stream holds."""

    created: str
    size_bytes: int
    messages: int


class StreamReader:
    """Reads some partitions in order. One `open` at a time; `close` forgets it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js: JetStreamContext = client.jetstream(timeout=2.0)
        self._consumer = ""
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._count = 0
        self._heard_s = 0.0
        self.pending = 0
        """Messages of these partitions that have not been read yet."""

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return bool(self._client.is_connected)

    async def state(self) -> StreamState:
        """What the stream holds. StreamAway."""
        try:
            info = await self._js.stream_info(STREAM)
        except _ERRORS as error:
            raise StreamAway(f"the stream does not answer: {_describe(error)}") from error
        created = "" if info.created is None else info.created.isoformat()
        return StreamState(created, info.state.bytes, info.state.messages)

    async def open(self, partitions: Sequence[int], after: int) -> None:
        """Begin with what follows sequence `after`. StreamAway."""
        await self.close()
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            filter_subjects=[subject_of(partition) for partition in partitions],
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            mem_storage=True,
            inactive_threshold=FORGOTTEN_AFTER_S,
            num_replicas=1,
        )
        try:
            info = await self._js.add_consumer(STREAM, config)
            self._subscription = await self._js.pull_subscribe_bind(consumer=info.name, stream=STREAM)
        except _ERRORS as error:
            raise StreamAway(f"the stream gives no consumer: {_describe(error)}") from error
        self._consumer, self._count = info.name, 0
        self.pending = info.num_pending or 0
        self._heard_s = time.monotonic()

    async def take(self, wait_s: float) -> list[Message]:
        """What comes next, some of it; nothing if nothing comes within `wait_s`. StreamAway (R2)."""
        if self._subscription is None or not self.is_up:
            raise StreamAway("there is no connection to the stream")
        try:
            fetched = await self._subscription.fetch(FETCHED_MESSAGES, timeout=wait_s)
        except NatsTimeoutError:
            await self._look_whether_known()
            return []
        except _ERRORS as error:
            raise StreamAway(f"the stream cannot be read: {_describe(error)}") from error
        self._heard_s = time.monotonic()
        messages = []
        for message in fetched:
            metadata = message.metadata
            self._count += 1
            if metadata.sequence.consumer != self._count:
                raise StreamAway("messages went missing on the way")
            self.pending = metadata.num_pending
            partition = int(message.subject.rpartition(".")[2])
            messages.append(Message(metadata.sequence.stream, partition, message.data))
        return messages

    async def ask_again(self, request: Resend) -> None:
        """Tell the shippers. StreamAway."""
        try:
            await self._client.publish(RESEND, encode(request))
        except _ERRORS as error:
            raise StreamAway(f"nobody can be asked to send again: {_describe(error)}") from error

    async def purge(self, through: int) -> None:
        """Delete what has a sequence of `through` or below. StreamAway."""
        try:
            await self._js.purge_stream(STREAM, seq=through + 1)
        except _ERRORS as error:
            raise StreamAway(f"the stream cannot be purged: {_describe(error)}") from error

    async def close(self) -> None:
        """Forget the consumer; it goes by itself if it cannot be told."""
        subscription, self._subscription = self._subscription, None
        self.pending = 0
        if subscription is None or not self.is_up:
            return
        try:
            await subscription.unsubscribe()
            await self._js.delete_consumer(STREAM, self._consumer)
        except _ERRORS:
            pass

    async def _look_whether_known(self) -> None:
        """A consumer whose server restarted is gone without a word."""
        if time.monotonic() - self._heard_s < SILENCE_S:
            return
        try:
            info = await self._js.consumer_info(STREAM, self._consumer)
        except _ERRORS as error:
            raise StreamAway(f"the stream's consumer is gone: {_describe(error)}") from error
        self.pending = info.num_pending or 0
        self._heard_s = time.monotonic()


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__
