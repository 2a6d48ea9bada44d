"""What can go wrong in storage: one small tree, with fields instead of prose to parse."""


class StorageError(Exception):
    """Base of the tree. `retryable`: the same call may succeed later without anybody doing anything."""

    retryable = False


class JournalFull(StorageError):
    """The journal took nothing of this record: no space, a short write, or the node's cap."""

    retryable = True


class JournalBroken(StorageError):
    """An fsync failed: what the kernel still holds is unknown, so the process must not answer again."""


class JournalLocked(StorageError):
    """Another process holds this journal's directory."""


class LeaseHeld(StorageError):
    """Another process mints ids from this lease."""


class DatabaseUnusable(StorageError):
    """The database cannot be used as it stands, and waiting will not help; the text says what to do."""
