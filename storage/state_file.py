"""What workers must know of the database beside the catalog, as a small file: `<data dir>/published.state`.

Format: JSON, `{"version": 1, "capped": [[offer_id, aff_id, until_ms], …], "has_external_ids": false}`. `aff_id` 0: the whole
offer; `until_ms`: Unix milliseconds at which that is over by itself.

P1  The file under its final name is always whole: it is written under another name, synced, then renamed.
P2  Whoever reads it takes all of it or nothing.
"""

from pathlib import Path

import msgspec

from storage.errors import StorageError
from storage.files import write_atomically

VERSION = 1


class StateDamaged(StorageError):
    """The published state cannot be read; the text says why and what to do."""


class PublishedState(msgspec.Struct, frozen=True):
    """What is published."""

    capped: list[tuple[int, int, int]] = []
    has_external_ids: bool = False
    version: int = VERSION


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(PublishedState).decode


def write_state(path: Path, state: PublishedState) -> None:
    """Replace the file (P1); OSError leaves the former one as it was."""
    write_atomically(path, [_encode(state), b"\n"])


def read_state(path: Path) -> PublishedState:
    """The state in that file (blocking); OSError, or StateDamaged."""
    try:
        state = _decode(path.read_bytes())
    except msgspec.MsgspecError as error:
        raise StateDamaged(f"{path}: {error}; delete it, and it is written anew from the database") from error
    if state.version != VERSION:
        raise StateDamaged(f"{path}: it is of version {state.version}, not {VERSION}; delete it, it is written anew")
    return state
