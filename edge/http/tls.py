"""TLS of the public port."""

import ssl

from edge.errors import UserError
from edge.settings import Settings


def load_tls(settings: Settings) -> ssl.SSLContext | None:
    """The server's context; None without a certificate. UserError: the files do not fit together."""
    if not settings.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"EDGE_TLS_CERT, EDGE_TLS_KEY: {error.strerror or error}") from error
    return context
