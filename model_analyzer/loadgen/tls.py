"""TLS of the load generator. Imported for an order that asks for it: OpenSSL is a seventh of what the process takes to start."""

from __future__ import annotations

import ssl
from typing import Any

# Of a handshake: what it waits for.
READ_FIRST, WRITE_FIRST = ssl.SSLWantReadError, ssl.SSLWantWriteError
# What a socket raises that takes or has nothing now.
BLOCKED = (BlockingIOError, READ_FIRST, WRITE_FIRST)


def context(tls: dict[str, Any]) -> ssl.SSLContext:
    """A client context from core.load.Tls as a dict."""
    context = ssl.create_default_context(cafile=tls["ca_file"])
    context.check_hostname = tls["verify_host"] and tls["verify_peer"]
    if not tls["verify_peer"]:
        context.verify_mode = ssl.CERT_NONE
    if tls["certificate_file"]:
        context.load_cert_chain(tls["certificate_file"], tls["private_key_file"])
    return context
