"""A backup as one file: a plain tar, so that it can be taken apart without us.

    database.dump           what pg_dump -Fc wrote
    secret, node.id, ids/   what the data dir had of these
    backup.json             what it is: `Contents`

B1  The file under its final name is always whole: it is written under another name, synced, then renamed. 0600.
B2  `backup.json` comes last and has the dump's SHA-256: a file that was cut or damaged is refused before it is used.
"""

import hashlib
import shutil
import tarfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import msgspec

from storage.errors import StorageError
from storage.files import replacing

VERSION = 1
DUMP, CONTENTS = "database.dump", "backup.json"
_BLOCK_BYTES = 512
_CHUNK_BYTES = 1 << 20
_MAX_SMALL_BYTES = 1 << 20


class BackupUnusable(StorageError):
    """The file is no backup, or not whole; the text says why."""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is of. `taken_at`: before the dump began, ISO 8601; `migration`: the number of the last one applied."""

    release: str
    taken_at: str
    server_version: str
    migration: int
    catalog_revision: int
    dump_bytes: int = 0
    dump_sha256: str = ""
    version: int = VERSION


def write_backup(path: Path, contents: Contents, files: Mapping[str, bytes], dump: Iterable[bytes]) -> Contents:
    """Put it all at `path`; what `dump` raises leaves a former file as it was. OSError: so does a full disk."""
    with replacing(path) as file:
        file.write(bytes(_BLOCK_BYTES))  # the dump's header, once its size is known
        digest, size = hashlib.sha256(), 0
        for chunk in dump:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.write(bytes(-size % _BLOCK_BYTES))
        contents = msgspec.structs.replace(contents, dump_bytes=size, dump_sha256=digest.hexdigest())
        for member, data in {**files, CONTENTS: msgspec.json.encode(contents)}.items():
            file.write(_header(member, len(data)) + data + bytes(-len(data) % _BLOCK_BYTES))
        file.write(bytes(2 * _BLOCK_BYTES))
        file.seek(0)
        file.write(_header(DUMP, size))
    return contents


class Backup:
    """A backup being read; close it."""

    def __init__(self, path: Path) -> None:
        """BackupUnusable unless it is one, and whole (B2: the dump is read once)."""
        self._path = path
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed by `close`
        except tarfile.TarError as error:
            raise BackupUnusable(f"{path}: is no backup by clickedge") from error
        except OSError as error:
            raise BackupUnusable(f"{path}: {error.strerror or error}") from error
        try:
            self.contents = self._read_contents()
            self._check_dump()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back."""
        self._tar.close()

    def files(self) -> dict[str, bytes]:
        """What was in the data dir, by name; nothing that leads out of it."""
        names = [one.name for one in self._tar.getmembers() if one.isfile() and one.name not in (DUMP, CONTENTS)]
        return {name: self._open(name).read(_MAX_SMALL_BYTES) for name in names if _is_expected(name)}

    def open_dump(self) -> IO[bytes]:
        """The dump, from its beginning."""
        return self._open(DUMP)

    def _read_contents(self) -> Contents:
        try:
            contents = msgspec.json.decode(self._open(CONTENTS).read(_MAX_SMALL_BYTES), type=Contents)
        except msgspec.MsgspecError as error:
            raise BackupUnusable(f"{self._path}: {CONTENTS}: {error}") from error
        if contents.version != VERSION:
            raise BackupUnusable(f"{self._path}: is of version {contents.version}, this release reads {VERSION}")
        return contents

    def _check_dump(self) -> None:
        digest = hashlib.sha256()
        with self.open_dump() as dump:
            while chunk := dump.read(_CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != self.contents.dump_sha256:
            raise BackupUnusable(f"{self._path}: is damaged, its checksum is wrong; take another backup")

    def _open(self, name: str) -> IO[bytes]:
        try:
            file = self._tar.extractfile(name)
        except (KeyError, OSError, tarfile.TarError):
            file = None
        if file is None:
            raise BackupUnusable(f"{self._path}: is no backup by clickedge, or only a part of one: no {name} in it")
        return file


def collect_files(data_dir: Path) -> dict[str, bytes]:
    """What a backup has of a data dir beside the database: small files; none for what is not there."""
    paths = [data_dir / "secret", data_dir / "node.id", *sorted((data_dir / "ids").glob("worker-*.lease"))]
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in paths if path.is_file()}


def copy_dump(source: IO[bytes], target: IO[bytes]) -> None:
    """From a backup into a program."""
    shutil.copyfileobj(source, target, _CHUNK_BYTES)


def _is_expected(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return name in ("secret", "node.id") or (folder == "ids" and file.startswith("worker-") and file.endswith(".lease"))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(time.time())
    return info.tobuf(tarfile.GNU_FORMAT)
