"""The node's identity: what names this data dir, and whether Postgres ever leased the node id to it."""

from hashlib import blake2b
from pathlib import Path

import structlog
from msgspec.structs import replace

from edge.secrets import load_or_create, load_or_create_uuid
from edge.setting_values import parse_secrets
from edge.settings import Settings
from storage.files import write_atomically
from storage.postgres.api_keys import admit_token
from storage.postgres.connection import connect
from storage.postgres.nodes import claim_node

log = structlog.get_logger()

_SECRET_BYTES = 32
SECRET_FILE = "secret"  # noqa: S105  # a name, not a secret
NODE_FILE = "node.id"
ADMIN_TOKEN_FILE = "admin.token"  # noqa: S105  # a name, not a secret


def with_secrets(settings: Settings) -> Settings:
    """`settings` with the click ids' secrets and the admin token, generated into the data dir where not given."""
    data_dir = settings.data_path
    secrets = settings.secrets or parse_secrets(load_or_create(data_dir / SECRET_FILE, _SECRET_BYTES))
    token = settings.admin_token or load_or_create(data_dir / ADMIN_TOKEN_FILE, _SECRET_BYTES)
    return replace(settings, secrets=secrets, admin_token=token)


def holds_lease(settings: Settings) -> bool:
    """Whether this data dir was ever given its node id by Postgres: it may then serve without asking again."""
    try:
        return _marker(settings).read_text("ascii") == _marker_text(settings)
    except FileNotFoundError:
        return False


async def claim_lease(settings: Settings, database_url: str) -> None:
    """Lease the node id in Postgres to this data dir, and remember it. DatabaseUnusable if another machine has it."""
    conn = await connect(database_url)
    try:
        await claim_node(
            conn,
            node_id=settings.node_id,
            data_dir_id=load_or_create_uuid(settings.data_path / NODE_FILE),
            secret_prints=secret_prints(settings),
        )
    finally:
        await conn.close()
    if not holds_lease(settings):
        write_atomically(_marker(settings), [_marker_text(settings).encode("ascii")])


async def admit_admin_token(settings: Settings, database_url: str) -> None:
    """Make the admin token an API key; the one that this node had before ends."""
    conn = await connect(database_url)
    try:
        is_in = await admit_token(conn, settings.admin_token, f"EDGE_ADMIN_TOKEN of node {settings.node_id}")
    finally:
        await conn.close()
    if not is_in:
        log.warning("admin_token_revoked", hint="it was revoked as a key: set another, or remove its file")


def secret_prints(settings: Settings) -> list[str]:
    """Fingerprints of the click ids' secrets, as the database keeps them to compare nodes."""
    return [_print(secret) for secret in settings.secrets]


def _marker(settings: Settings) -> Path:
    return settings.data_path / "node.lease"


def _marker_text(settings: Settings) -> str:
    return f"{settings.node_id}\n"


def _print(secret: str) -> str:
    """A fingerprint that tells equal secrets apart from different ones and says nothing else about them."""
    return blake2b(secret.encode(), digest_size=16, person=b"clickedge print").hexdigest()
