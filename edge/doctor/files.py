"""Files that settings name: geo database, list of data centres, TLS certificate."""

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import maxminddb

from edge.datacentres import packaged_ranges, read_ranges
from edge.doctor.findings import Finding, fail, ok, warn
from edge.doctor.installation import Installation

STALE_GEO_DAYS = 60
CERTIFICATE_WARNING_DAYS = 21
_DAY_S = 86_400


def check_geo(found: Installation) -> Iterator[Finding]:
    """Readable, of a kind with countries, and not too old."""
    path = found.settings.geoip_db
    if not path:
        yield ok("geo database", "none is set: places are unknown, and rules by place match nothing")
        return
    try:
        with maxminddb.open_database(path) as reader:
            built = reader.metadata()
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        yield fail(
            "geo database",
            f"{path}: {getattr(error, 'strerror', None) or error}",
            "put a whole .mmdb file there, or leave EDGE_GEOIP_DB empty",
        )
        return
    days = (time.time() - built.build_epoch) / _DAY_S
    said = f"{built.database_type}, {days:.0f} days old"
    if not any(word in built.database_type.lower() for word in ("city", "country", "enterprise", "location")):
        yield warn(
            "geo database", f"{said}: that kind may know no countries", "set EDGE_GEOIP_DB to a city or country one"
        )
    elif days > STALE_GEO_DAYS:
        yield warn("geo database", said, "fetch a newer one; it is taken up without a restart")
    else:
        yield ok("geo database", said)


def check_datacentres(found: Installation) -> Iterator[Finding]:
    """Whether the list can be read, and is not empty."""
    path = found.settings.datacentre_list
    try:
        ranges = read_ranges(Path(path).read_text("utf-8-sig")) if path else packaged_ranges()
    except (OSError, ValueError) as error:
        yield fail(
            "data centres", f"{path}: {error}", "correct EDGE_DATACENTRE_LIST, or leave it empty for the packaged one"
        )
        return
    said = f"{len(ranges.firsts)} ranges in {path or 'the packaged list'}"
    if ranges.firsts:
        yield ok("data centres", said)
    else:
        yield warn("data centres", said, "no bot is known by its data centre: fill the list, or leave it empty")


def check_certificate(found: Installation) -> Iterator[Finding]:
    """Whether a client that trusts the certificate itself would shake hands with us, and for how long yet."""
    settings = found.settings
    if not settings.tls_cert:
        yield ok("certificate", "TLS is not used here")
        return
    advice = "set EDGE_TLS_CERT and EDGE_TLS_KEY to a chain and its key in PEM, then restart serve"
    try:
        peer = shake_hands(settings.tls_cert, settings.tls_key)
    except ssl.SSLCertVerificationError as error:
        yield fail("certificate", f"{settings.tls_cert}: {error.verify_message}", "renew it, then restart serve")
        return
    except (OSError, ValueError) as error:
        yield fail("certificate", f"{settings.tls_cert}: {getattr(error, 'reason', None) or error}", advice)
        return
    until_s = ssl.cert_time_to_seconds(str(peer["notAfter"]))
    days = (until_s - time.time()) / _DAY_S
    said = f"for {_names(peer)}, until {datetime.fromtimestamp(until_s, UTC):%Y-%m-%d} ({days:.0f} days)"
    if days < CERTIFICATE_WARNING_DAYS:
        yield warn("certificate", said, "renew it, then restart serve")
    elif not peer.get("subjectAltName"):
        yield warn("certificate", f"{said}: clients refuse one without a subjectAltName", "get one that names the host")
    else:
        yield ok("certificate", said)


def shake_hands(certificate: str, key: str) -> dict[str, object]:
    """The certificate as a client sees it, after a handshake in memory. OSError (ssl's among them): it would not work."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(certificate, key, password=lambda: "none")  # else one is asked for on the terminal
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    # The chain's own first certificate is trusted: whose roots clients have is not ours to say.
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_context.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return dict(client.getpeercert() or {})


def _names(peer: dict[str, object]) -> str:
    alternatives = peer.get("subjectAltName", ())
    names = [value for _, value in alternatives] if isinstance(alternatives, tuple) else []
    return ", ".join(names[:4]) or "no name"
