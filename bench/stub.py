"""A server that does nothing: it answers every request at once with the same reply, or stream of them, over HTTP/1.1 or HTTP/2.

What a client costs against it is the client's own cost. `python bench/stub.py` prints its port and serves until its input ends.
"""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# The replies of the demo's add_sub, batch size 1, as Triton 2.51 sends them (over gRPC with its credit).
JSON = (
    b'{"model_name":"add_sub","model_version":"1","outputs":['
    b'{"name":"OUTPUT0","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}},'
    b'{"name":"OUTPUT1","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}'
)
HTTP_REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n"
    b"Content-Length: %d\r\n\r\n%s%s" % (len(JSON), len(JSON) + 32, JSON, bytes(32))
)


def _output(name: bytes) -> bytes:
    fields = b"\x0a" + bytes([len(name)]) + name + b"\x12\x04FP32" + b"\x1a\x02\x01\x04"
    return b"\x2a" + bytes([len(fields)]) + fields


MESSAGE = b"\x0a\x07add_sub" + b"\x12\x011" + _output(b"OUTPUT0") + _output(b"OUTPUT1") + (b"\x32\x10" + bytes(16)) * 2
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8


def _frame(kind: int, flags: int, payload: bytes, ident: bytes = bytes(4)) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + ident + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value


GREETING = _frame(SETTINGS, 0, bytes.fromhex("000400400000000500400000000600004000")) + _frame(
    WINDOW_UPDATE, 0, struct.pack(">I", 0x3F0001)
)
# Split by the stream ids of its three frames; those of the credit are zeros.
GRPC_REPLY = tuple(
    (
        _frame(HEADERS, 4, b"\x88" + _literal(b"content-type", b"application/grpc"), b"\xff" * 4)
        + _frame(DATA, 0, struct.pack(">BI", 0, len(MESSAGE)) + MESSAGE, b"\xff" * 4)
        + _frame(HEADERS, 5, _literal(b"grpc-status", b"0"), b"\xff" * 4)
        + _frame(WINDOW_UPDATE, 0, struct.pack(">I", 200))
    ).split(b"\xff" * 4)
)
# Streams of so many responses, all at once: what one costs, and not the read that it may have to itself.
RESPONSES = 8
STREAM_PATHS = b"/generate_stream ", b"/inference.GRPCInferenceService/ModelStreamInfer"
EVENT = (
    b'data: {"model_name":"token_stream","model_version":"1","parameters":{"triton_final_response":false},'
    b'"text_output":"token"}\n\n'
)
HTTP_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"%x\r\n%s\r\n" % (len(EVENT), EVENT) * RESPONSES
    + b"0\r\n\r\n"
)
# ModelStreamInferResponse { infer_response }
STREAMED = b"\x12" + bytes([len(MESSAGE)]) + MESSAGE
GRPC_STREAM = tuple(
    (
        _frame(HEADERS, 4, b"\x88" + _literal(b"content-type", b"application/grpc"), b"\xff" * 4)
        + _frame(DATA, 0, struct.pack(">BI", 0, len(STREAMED)) + STREAMED, b"\xff" * 4) * RESPONSES
        + _frame(HEADERS, 5, _literal(b"grpc-status", b"0"), b"\xff" * 4)
        + _frame(WINDOW_UPDATE, 0, struct.pack(">I", 200))
    ).split(b"\xff" * 4)
)


class Client:
    """One connection: what came in and is not answered yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.http2: bool | None = None
        self.streams = False

    def answer(self, data: bytes) -> bytes:
        """The replies to what is whole."""
        data = self.rest + data
        if self.http2 is None:
            self.http2 = data.startswith(PREFACE)
            if self.http2:
                self.rest = data[len(PREFACE) :]
                return GREETING + self.answer(b"")
        return self._http2(data) if self.http2 else self._http1(data)

    def _http1(self, data: bytes) -> bytes:
        replies = []
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end].lower()
            size = end + 4 + int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            if len(data) < size:
                break
            data = data[size:]
            replies.append(HTTP_STREAM if STREAM_PATHS[0] in head else HTTP_REPLY)
        self.rest = data
        return b"".join(replies)

    def _http2(self, data: bytes) -> bytes:
        at, replies = 0, []
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            if data[at + 3] == HEADERS:
                self.streams = STREAM_PATHS[1] in data[at:end]
            if data[at + 3] == DATA and data[at + 4] & 1:
                replies.append(data[at + 5 : at + 9].join(GRPC_STREAM if self.streams else GRPC_REPLY))
            at = end
        self.rest = data[at:]
        return b"".join(replies)


def serve(listener: socket.socket) -> None:
    """Answer until stdin ends."""
    poll = select.epoll()
    clients: dict[int, Client] = {}
    poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    poll.register(listener.fileno(), select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            client = clients.get(fd)
            if client is not None:
                data = _receive(client.sock)
                if data:
                    client.sock.sendall(client.answer(data))
                else:
                    del clients[fd]
                    client.sock.close()
            elif fd == sys.stdin.fileno():
                return
            else:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[sock.fileno()] = Client(sock)
                poll.register(sock.fileno(), select.EPOLLIN)


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 18)
    except ConnectionError:
        return b""


@contextmanager
def running() -> Iterator[str]:
    """The address of a stub in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        print(listening.getsockname()[1], flush=True)
        serve(listening)
