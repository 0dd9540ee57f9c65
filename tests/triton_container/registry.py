"""An image registry of one image, on loopback, for real pulls by a real engine.

Source: the Docker Registry HTTP API V2, image manifest version 2, schema 2. Engines take registries on 127.0.0.0/8
without TLS.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

DOCKER = "application/vnd.docker"
CHUNK = 64 * 1024


@contextmanager
def registry(layers: Sequence[bytes], bytes_per_second: float = float("inf")) -> Iterator[str]:
    """Serve an image of these layers (tar files); the image's name."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{DOCKER}.distribution.manifest.v2+json",
            "config": _described(config, f"{DOCKER}.container.image.v1+json"),
            "layers": [_described(layer, f"{DOCKER}.image.rootfs.diff.tar.gzip") for layer in layers],
        }
    ).encode()
    blobs = {_digest(blob): blob for blob in (config, manifest, *layers)}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            *_, kind, name = self.path.split("/")
            body = b"{}" if self.path == "/v2/" else blobs.get(name, manifest if name == "test-py3" else None)
            self.send_response(404 if body is None else 200)
            body = body or b""
            self.send_header(
                "Content-Type", f"{DOCKER}.distribution.manifest.v2+json" if kind == "manifests" else "x/y"
            )
            self.send_header("Docker-Content-Digest", _digest(body))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # an interrupted pull
                for start in range(0, len(body) if self.command == "GET" else 0, CHUNK):
                    self.wfile.write(body[start : start + CHUNK])
                    time.sleep(min(len(body), CHUNK) / bytes_per_second)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}/tritonserver:test-py3"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def layer(name: str, content: bytes) -> bytes:
    """A layer with one file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _described(blob: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(blob), "digest": _digest(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
