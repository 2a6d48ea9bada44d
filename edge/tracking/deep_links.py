"""`url=`: the page that a partner's link asks for, followed only to hosts that the offer names.

What is checked is what is sent: first every byte outside RFC 3986 becomes `%XX`, so that no browser finds another host in
it than we do; then the host must be certain (`urls.host_of`) and one of the domains, or below one.
"""

from collections.abc import Collection

from edge.tracking.urls import encode_url, host_of


def find_location(url: str, domains: Collection[str]) -> str:
    """`url`, decoded once, as a Location; "" unless it certainly leads to one of `domains`, which are in small letters."""
    if not domains:
        return ""
    location = encode_url(url)
    host = host_of(location)
    return location if any(host == domain or host.endswith(f".{domain}") for domain in domains) else ""
