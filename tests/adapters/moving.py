"""Made-up videos whose frames can be told apart, and ways of damaging and serving them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH, FPS = 48, 64, 10


def image(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A grey of 6 times the number, and noise in the upper left quarter."""
    made = np.full((height, width, 3), 6 * number, np.uint8)
    noise = np.random.default_rng(number).integers(0, 255, (height // 2, width // 2, 3))
    made[: height // 2, : width // 2] = noise
    return made


def number_of(shown: np.ndarray) -> int:
    """The number of a frame `[H, W, 3]`, read from its lower right corner."""
    return round(float(shown[-4:, -4:].mean()) / 6)


def write(path: Path, count: int = 40, *, options: dict[str, str] | None = None) -> Path:
    """A video of so many frames, numbered from 0 to 39 and again."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 5
        stream.options = {"threads": "1", "bf": "0"}
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image(number % 40), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_image(path: Path, number: int) -> Path:
    """A frame of this number as PNG or JPEG."""
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png" if path.suffix == ".png" else "mjpeg", rate=1)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "rgb24" if path.suffix == ".png" else "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image(number), format="rgb24")))
        container.mux(stream.encode())
    return path


def damaged(path: Path, out: Path, frames: set[int]) -> Path:
    """A copy of a video in which these frames are garbage."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is None:
                continue
            if number in frames:
                garbage = av.Packet((packet.size - 4).to_bytes(4) + b"\x41" + b"\xff" * (packet.size - 5))
                garbage.pts, garbage.dts, garbage.time_base = packet.pts, packet.dts, packet.time_base
                packet = garbage
            packet.stream = stream
            target.mux(packet)
    return out


@contextmanager
def listening(serve: Callable[[socket.socket, int], None]) -> Iterator[str]:
    """A server on this machine: `serve(connection, number)` for each connection, counted from 0; its host:port."""
    server = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=serve, args=(connection, len(connections) - 1), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for connection in connections:
            connection.close()


def http(connection: socket.socket, body: bytes, *, length: int | None = None, close: bool = True) -> None:
    """Answer one HTTP request with (part of) a body; without a length it is a stream."""
    connection.recv(65536)
    stated = f"Content-Length: {length}\r\n" if length is not None else ""
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n{stated}\r\n".encode() + body)
    if close:
        connection.close()
