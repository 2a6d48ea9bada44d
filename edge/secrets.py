"""Secrets that the product makes for itself: one 0600 file each in the data dir.

Created whole or not at all: written under another name, fsynced, then linked to the final one, which fails if somebody
was faster; then theirs is read. So two processes that start at once agree, and a power cut leaves no empty secret.
"""

import os
import re
import secrets
import stat
from pathlib import Path
from uuid import UUID, uuid4

from edge.errors import UserError
from storage.files import sync_directory


def load_or_create(path: Path, nbytes: int) -> str:
    """The secret in `path`, made of `nbytes` random bytes (as hex) if there is none; UserError if it cannot be used."""
    text = _load_or_create(path, secrets.token_hex(nbytes))
    if not re.fullmatch(r"[!-~]{16,4096}", text):
        raise UserError(f"{path}: holds no secret (16 or more printable characters); restore it, or remove the file")
    return text


def load_or_create_uuid(path: Path) -> UUID:
    """The UUID in `path`, made if there is none; UserError if it cannot be used."""
    text = _load_or_create(path, str(uuid4()))
    try:
        return UUID(text)
    except ValueError:
        raise UserError(f"{path}: holds no UUID; restore it, or remove the file") from None


def _load_or_create(path: Path, fresh: str) -> str:
    try:
        if not path.exists():
            _create(path, fresh)
        return _load(path)
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text; restore it, or remove the file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make its directory usable, or set EDGE_DATA_DIR") from error


def _load(path: Path) -> str:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise UserError(f"{path}: others may read this secret (mode {mode:04o}); run: chmod 600 {path}")
        return file.read(8192).decode("utf-8").strip()


def _create(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_synced(temporary, text)
        os.link(temporary, path)
    except FileExistsError:
        return  # Another process was faster: its secret is the one.
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _write_synced(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
