"""Signed postbacks: `signature`, an HMAC-SHA256 over the sorted parameters, and `timestamp`, when it was made.

Signed are all parameters that were sent but `signature` itself: name and value percent-encoded as RFC 3986 has it
(letters, digits and `-._~` stay, all other UTF-8 bytes are `%XX`), joined by `=`, the pairs in byte order joined by `&`;
empty parameters are left out. The key is the advertiser's `signing_secret`, the signature is hex.
"""

from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest

from edge.tracking.urls import encode_value
from edge.tracking.verdict import AdvertiserView, ConversionFacts

WINDOW_S = 300
"""How far `timestamp` may be from the receipt, before or after."""
# The parser has renamed it; a sender signs what it wrote.
_SHORT_NAMES = {"adv_sub1": "adv_sub", "aff_sub1": "aff_sub"}


def canonical(params: Mapping[str, str]) -> str:
    """What is signed of these parameters."""
    pairs = (
        (encode_value(name), encode_value(value)) for name, value in params.items() if name != "signature" and value
    )
    return "&".join(sorted(f"{name}={value}" for name, value in pairs))


def sign(params: Mapping[str, str], secret: str) -> str:
    """The signature of these parameters: 64 lower-case hex digits."""
    return hmac_digest(secret.encode("utf-8", "surrogatepass"), canonical(params).encode(), sha256).hex()


def find_fault(sent: ConversionFacts, advertiser: AdvertiserView) -> str:
    """What is wrong with a postback's signature; "" for nothing, and where none is asked for."""
    if not advertiser.signing_secret or sent.via != "postback":
        return ""
    signature = sent.params.get("signature", "")
    if not signature:
        return "no signature was sent"
    timestamp = sent.params.get("timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 11):
        return "no timestamp in Unix seconds was sent"
    off_s = abs(sent.received_ms - int(timestamp) * 1000) / 1000
    if off_s > WINDOW_S:
        return f"its timestamp is {off_s:.0f} s from the receipt, more than {WINDOW_S}"
    return "" if _is_right(signature, sent.params, advertiser.signing_secret) else "the signature is wrong"


def replay_claims(sent: ConversionFacts, advertiser: AdvertiserView) -> tuple[str, ...]:
    """The key that makes an accepted signature count once; none for an advertiser who does not sign."""
    if not advertiser.signing_secret or sent.via != "postback":
        return ()
    return (f"s:{advertiser.id}:{sent.params['signature'].lower()}",)


def is_replay_claim(key: str) -> bool:
    """Whether a uniqueness key is a signature's."""
    return key.startswith("s:")


def _is_right(signature: str, params: Mapping[str, str], secret: str) -> bool:
    given = signature.lower().encode("utf-8", "surrogatepass")
    renamed = {_SHORT_NAMES.get(name, name): value for name, value in params.items()}
    # Both are always worked out: how long it takes says nothing.
    as_sent, as_short = (compare_digest(given, sign(one, secret).encode()) for one in (params, renamed))
    return as_sent or as_short
