"""Pages served safely: who may ask, from where, how much, and what a page may load.

A page on this machine is within reach of every other page that the same browser has open. So a
request must name this server (no rebinding of names), must not come from another site's page, and
bring the token where one is set; answers tell the browser to load nothing from elsewhere.
"""

from tonewood.web.security import (
    CONTENT_SECURITY_POLICY,
    RequestLimits,
    accepted_hostnames,
    is_loopback,
    secure,
    server_url,
)
from tonewood.web.server import require_server_extra, run_server

__all__ = [
    "CONTENT_SECURITY_POLICY",
    "RequestLimits",
    "accepted_hostnames",
    "is_loopback",
    "require_server_extra",
    "run_server",
    "secure",
    "server_url",
]
