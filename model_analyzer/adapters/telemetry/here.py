"""Whether a server is on this host."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit


def is_here(endpoint: str) -> bool:
    """Whether an endpoint (host:port or an URL) is on this host, which in a pod is the pod. Names are not resolved."""
    host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname or ""
    if host in ("localhost", os.uname().nodename.lower()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    # Here and not above: for a server elsewhere nothing else of psutil is needed.
    import psutil

    own = {each.address.partition("%")[0] for found in psutil.net_if_addrs().values() for each in found}
    return str(address) in own
