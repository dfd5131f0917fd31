"""Clips as real H.264 files, on disk and in memory."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import av
import numpy as np

# With its lookahead x264 does not write the same bytes every time.
_REPEATABLE = "rc-lookahead=0:sync-lookahead=0:mbtree=0"


def write_clip(
    path: str | Path | BytesIO, frames: np.ndarray, *, fps: int = 8, crf: int = 20, preset: str = "medium"
) -> None:
    """Encode frames (uint8 `[F, H, W, 3]`) as H.264 in an MP4 container, 4:2:0."""
    with av.open(path if isinstance(path, BytesIO) else str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset, "threads": "1", "x264-params": _REPEATABLE}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def through_codec(frames: np.ndarray, *, crf: int = 20, preset: str = "veryfast") -> np.ndarray:
    """The same frames (uint8 `[F, H, W, 3]`) after encoding and decoding in memory."""
    buffer = BytesIO()
    write_clip(buffer, frames, crf=crf, preset=preset)
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
