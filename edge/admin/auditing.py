"""What the API, the console and log-ins write into the audit log: ids and names of fields, never what was sent in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from edge.admin.authentication import Windows
from edge.admin.backend import Backend, DatabaseAway
from edge.logs import RateLimited
from storage.errors import StorageError
from storage.postgres.audit import Entry, add_entry
from storage.postgres.connection import is_retryable

FAILURES_WRITTEN = 30
"""Failed log-ins that are written down in a minute; more of them are only counted, in the next one's detail."""
_NAMES_PEOPLE = frozenset(("contact_id", "transaction_id"))
_MAX_FIELDS = 40
quietly = RateLimited(structlog.get_logger(), 5.0)


async def write_entry(backend: Backend, entry: Entry) -> None:
    """Write it down; inside `backend.transaction` with what it is about. DatabaseAway."""
    async with backend.connection() as conn:
        await add_entry(conn, entry)


async def write_afterwards(backend: Backend, entry: Entry) -> None:
    """Write down what is done already: that this fails does not undo it, and is logged."""
    try:
        await write_entry(backend, entry)
    except Exception as error:
        if not (isinstance(error, DatabaseAway | StorageError | OSError) or is_retryable(error)):
            raise
        quietly.error("audit_not_written", action=entry.action, actor=entry.actor, error=str(error))


def subject_of(path: Mapping[str, str]) -> str:
    """What a request is about, by the variables of its path; people are not named."""
    return " ".join(f"{name}={'…' if name in _NAMES_PEOPLE else value}" for name, value in sorted(path.items()))


def fields_of(body: Any) -> dict[str, Any]:
    """The names of what was sent, a body's own or a form's."""
    names = body.keys() if isinstance(body, Mapping) else getattr(body, "__struct_fields__", ())
    fields = sorted({str(name) for name in names if name != "csrf"})[:_MAX_FIELDS]
    return {"fields": fields} if fields else {}


class LogIns:
    """Log-ins, good and bad. Of the bad ones a bounded number a minute is written."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._windows = Windows(FAILURES_WRITTEN)
        self._unwritten = 0

    async def note(self, actor: str, address: str) -> None:
        """Somebody came in."""
        await write_afterwards(self._backend, Entry(actor, "log_in", address=address))

    async def note_failure(self, address: str, why: str) -> None:
        """Somebody did not."""
        if self._windows.take("").is_over:
            self._unwritten += 1
            return
        detail = {"why": why, **({"not_written": self._unwritten} if self._unwritten else {})}
        self._unwritten = 0
        await write_afterwards(self._backend, Entry("nobody", "log_in_failed", "", detail, address))


def is_written(method: str, name: str, media: Sequence[str] = ()) -> bool:
    """Whether an operation or page is written down: what changes something, and what takes rows out as a file."""
    return method not in ("GET", "HEAD", "OPTIONS") or ("export" in name and bool(media))
