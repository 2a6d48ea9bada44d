"""The two ports: free for serve to take, or taken by the serve that they belong to."""

import errno
import os
import socket
from collections.abc import Iterator

import psutil

from edge.doctor.findings import Finding, fail, ok, warn
from edge.doctor.installation import Installation


def check_ports(found: Installation) -> Iterator[Finding]:
    """Both listeners."""
    settings = found.settings
    yield _check("EDGE_PORT", "EDGE_HOST", settings.host, settings.port, found)
    yield _check("EDGE_ADMIN_PORT", "EDGE_ADMIN_HOST", settings.admin_host, settings.admin_port, found)


def _check(name: str, host_name: str, host: str, port: int, found: Installation) -> Finding:
    place = f"{host}:{port}"
    if port == 0:
        return ok("ports", f"{name} is 0: serve takes a free one")
    error = _try(host, port)
    if error == 0:
        if found.is_running:
            return warn(
                "ports", f"a serve runs on this data dir, and not on {place}", "give doctor the settings of serve"
            )
        return ok("ports", f"{place} is free")
    if error == errno.EADDRINUSE:
        return _describe_holder(name, place, port, found)
    if error == errno.EACCES:
        advice = "AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or a port above 1023"
        return fail("ports", f"this user may not listen on {place}", advice)
    return fail("ports", f"cannot listen on {place}: {os.strerror(error)}", f"correct {host_name}")


def _describe_holder(name: str, place: str, port: int, found: Installation) -> Finding:
    holders = _holders(port)
    if found.is_running and (not holders or holders.keys() & found.family()):
        return ok("ports", f"{place} is held by the running serve")
    who = ", ".join(f"{title} (process {pid})" for pid, title in sorted(holders.items())) or "another program"
    return fail("ports", f"{place} is held by {who}", f"end it, or choose another {name}; ss -ltnp shows more")


def _try(host: str, port: int) -> int:
    """0, or why the port cannot be had. It is bound as serve would bind it first, and nobody can connect meanwhile."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _holders(port: int) -> dict[int, str]:
    """Process ids and names of who listens there, as far as this user may know."""
    found = {}
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
            try:
                found[one.pid] = psutil.Process(one.pid).name()
            except psutil.Error:
                found[one.pid] = "a program"
    return found
