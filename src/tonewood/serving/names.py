"""By which names a server is called."""

import socket

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
WILDCARD_HOSTS = frozenset({"0.0.0.0", "::"})


def accepted_hostnames(host: str) -> frozenset[str]:
    """Names by which a server bound to `host` may be called."""
    names = {host.lower()}
    if host in WILDCARD_HOSTS:
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
    return frozenset(names) | LOOPBACK_HOSTS


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a server bound to `host`."""
    return host in LOOPBACK_HOSTS


def server_url(host: str, port: int, token: str | None = None) -> str:
    """Address to open, the token in it."""
    if host in WILDCARD_HOSTS:
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
