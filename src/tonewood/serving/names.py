"""By which names a server is called."""

import socket

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
ANY = frozenset({"0.0.0.0", "::"})


def names_of(host: str) -> frozenset[str]:
    """Names by which a server bound to `host` may be called."""
    names = {host.lower()}
    if host in ANY:
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
    return frozenset(names) | LOCAL


def is_local(host: str) -> bool:
    """Whether nobody but this machine reaches a server bound to `host`."""
    return host in LOCAL


def address(host: str, port: int, token: str | None = None) -> str:
    """Address to open, the token in it."""
    if host in ANY:
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
