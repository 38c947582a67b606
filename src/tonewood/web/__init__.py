"""Web servers for local pages: access control, request limits and security headers.

Every page that is open in the same browser can send requests to a server on this machine. So a request
must use a known host name (against DNS rebinding), must not come from another site's page, and must bring
the token if one is set. Answers tell the browser to load nothing from elsewhere.
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
