"""Pages served safely: who may ask, from where, how much, and what a page may load.

A page on this machine is within reach of every other page that the same browser has open. So a
request must name this server (no rebinding of names), must not come from another site's page, and
bring the token where one is set; answers tell the browser to load nothing from elsewhere.
"""

from tonewood.serving.guard import POLICY, Limits, guarded
from tonewood.serving.names import address, is_local, names_of
from tonewood.serving.server import check_extra, serve

__all__ = [
    "POLICY",
    "Limits",
    "address",
    "check_extra",
    "guarded",
    "is_local",
    "names_of",
    "serve",
]
