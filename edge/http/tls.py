"""TLS of the public port: 1.2 with forward secrecy and authenticated encryption, or 1.3."""

import ssl

from edge.errors import UserError
from edge.settings import Settings

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all good. What they leave out is what Mozilla's "intermediate" list leaves out."""


def load_tls(settings: Settings) -> ssl.SSLContext | None:
    """The server's context; None without a certificate. UserError: the files do not fit together."""
    if not settings.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # said here: the default is the system's
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client may not ask for one handshake after the other
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"EDGE_TLS_CERT, EDGE_TLS_KEY: {error.strerror or error}") from error
    return context
