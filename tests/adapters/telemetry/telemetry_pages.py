"""What the replaying server answers, and pages that derive from real ones."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(__file__).parent.parent.parent / "data"


@dataclass
class Replay:
    """What the server answers next, and what it has seen."""

    url: str = ""
    body: bytes = b""
    status: int = 200
    delay_s: float = 0.0
    drip_s: float = 0.0  # between single bytes
    announce: int | None = None  # Content-Length, where it is not the body's
    connections: set[object] = field(default_factory=set)
    requests: int = 0
    # No test waits for a server that is slow on purpose.
    over: threading.Event = field(default_factory=threading.Event)

    def serve(self, text: str) -> None:
        self.body = text.encode()


def page(name: str) -> str:
    """A real page."""
    return (DATA / name).read_text()


def row(field: str, value: object, uuid: str = "GPU-a", **labels: str) -> str:
    """A row as the exporter's template writes it."""
    texts = {"gpu": "0", "UUID": uuid, "modelName": "NVIDIA A100-SXM4-80GB", **labels, "Hostname": "node-1"}
    inside = ",".join(f'{name}="{text}"' for name, text in texts.items())
    return f"{field}{{{inside}}} {value}\n"
