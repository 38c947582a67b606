"""Pages served safely: who may ask, from where, how much, and what a page may load.

A page on this machine is within reach of every other page that the same browser has open. So a
request must name this server (no rebinding of names), must not come from another site's page, and
bring the token where one is set; answers tell the browser to load nothing from elsewhere.
"""

from tonewood.serving.guard import CONTENT_SECURITY_POLICY, RequestLimits, secure
from tonewood.serving.names import server_url, is_loopback, accepted_hostnames
from tonewood.serving.server import require_server_extra, run_server

__all__ = [
    "CONTENT_SECURITY_POLICY",
    "RequestLimits",
    "server_url",
    "require_server_extra",
    "secure",
    "is_loopback",
    "accepted_hostnames",
    "run_server",
]
