"""Reading video files: content, sampling, times, rotation, and errors that name the file and the reason."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from adapters.video import VideoError, frames_of, read_video, video_size

COUNT, HEIGHT, WIDTH, FPS = 40, 48, 64, 10


def write(path: Path, codec: str = "libx264", count: int = COUNT, options: dict[str, str] | None = None) -> Path:
    """Write frames whose grey level is 6 times their number, brighter in the top left quarter."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 5
        stream.bit_rate = 2_000_000
        stream.options = {"threads": "1"}
        for index in range(count):
            image = np.full((HEIGHT, WIDTH, 3), 6 * index, np.uint8)
            image[: HEIGHT // 2, : WIDTH // 2] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(frames: torch.Tensor) -> list[int]:
    """The numbers of the frames, read from their lower right corner."""
    return (frames[:, -4:, -4:].float().mean((1, 2, 3)) / 6).round().int().tolist()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("video") / "clip.mp4")


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.ts", "libx264")],
)
def test_every_container_gives_the_same_frames(tmp_path: Path, name: str, codec: str) -> None:
    video = read_video(write(tmp_path / name, codec))
    assert video.frames.shape == (COUNT, HEIGHT, WIDTH, 3)
    assert video.frames.dtype == torch.uint8
    assert numbers(video.frames) == list(range(COUNT))
    assert video.timestamps == pytest.approx([i / FPS for i in range(COUNT)], abs=2e-3)
    assert video.fps == pytest.approx(FPS)
    assert video.duration == pytest.approx(COUNT / FPS, abs=2e-3)
    assert video.path == tmp_path / name


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")]
)
def test_a_span_is_read_as_if_it_were_the_file(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, codec)
    video = read_video(path, start=1.3, end=2.9)
    assert numbers(video.frames) == list(range(13, 29))
    assert video.timestamps == pytest.approx([i / FPS for i in range(16)], abs=2e-3)
    assert video.duration == pytest.approx(1.6, abs=2e-3)
    assert numbers(read_video(path, start=1.3, end=2.9, frames=4).frames) == [13, 18, 23, 28]
    assert numbers(read_video(path, start=1.3, end=2.9, fps=2).frames) == [13, 18, 23, 28]
    assert numbers(read_video(path, end=0.5).frames) == [0, 1, 2, 3, 4]
    assert numbers(read_video(path, start=3.7).frames) == [37, 38, 39]
    assert numbers(read_video(path, start=3.5, end=99).frames) == [35, 36, 37, 38, 39]


def test_a_span_begins_with_what_is_on_screen(clip: Path) -> None:
    video = read_video(clip, start=1.34, end=1.65)
    assert numbers(video.frames) == [13, 14, 15, 16]
    assert video.timestamps == pytest.approx([0, 0.06, 0.16, 0.26], abs=2e-3)
    assert numbers(read_video(clip, start=1.32, end=1.38).frames) == [13], "between two frames"
    assert numbers(read_video(clip, start=3.95).frames) == [39]


def write_with_a_gap(path: Path, times: list[float], **metadata: str) -> Path:
    """Frames at given seconds, numbered as in `write`."""
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 6 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_gap_is_no_reason_for_a_burst(tmp_path: Path) -> None:
    path = write_with_a_gap(tmp_path / "gap.mkv", [0, 1.0, 2.0, 2.04, 2.08, 2.12, 5.0, 5.04, 5.6])
    assert numbers(read_video(path, fps=2).frames) == [0, 1, 2, 6, 8]
    assert numbers(read_video(path, start=3, end=5.02).frames) == [5, 6], "on screen since 2.12"
    assert numbers(read_video(path, start=3, end=4).frames) == [5]


def test_texts_in_another_encoding_do_no_harm(tmp_path: Path) -> None:
    path = write_with_a_gap(tmp_path / "title.mkv", [0, 0.1, 0.2], title="XYZW")
    content = path.read_bytes()
    assert content.count(b"XYZW") == 1
    path.write_bytes(content.replace(b"XYZW", b"\xff\xfe\xe9\xff"))
    assert numbers(read_video(path).frames) == [0, 1, 2]


def test_spans_that_cannot_be(clip: Path) -> None:
    for start, end in ((2.0, 2.0), (3.0, 1.0), (-1.0, None)):
        with pytest.raises(VideoError, match=r"clip\.mp4.*0 <= start < end"):
            read_video(clip, start=start, end=end)
    with pytest.raises(VideoError, match=r"clip\.mp4.*nothing is shown from 9\.0"):
        read_video(clip, start=9.0, end=12.0)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])  # a Matroska file does not announce its number of frames
@pytest.mark.parametrize(("wanted", "expected"), [(1, [0]), (2, [0, 39]), (4, [0, 13, 26, 39]), (99, list(range(40)))])
def test_frames_are_spread_evenly(tmp_path: Path, name: str, wanted: int, expected: list[int]) -> None:
    video = read_video(write(tmp_path / name), frames=wanted)
    assert numbers(video.frames) == expected
    assert video.timestamps == pytest.approx([i / FPS for i in expected], abs=2e-3)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (10, list(range(40))),
        (5, list(range(0, 40, 2))),
        (4, [0, 3, 5, 8, 10, 13, 15]),
        (0.2, [0]),
        (60, list(range(40))),
    ],
)
def test_fps_takes_the_first_frame_at_or_after_every_tick(clip: Path, fps: float, expected: list[int]) -> None:
    video = read_video(clip, fps=fps)
    assert numbers(video.frames)[: len(expected)] == expected
    assert len(video.frames) == len(video.timestamps) == (16 if fps == 4 else len(expected))


def test_progress_counts_decoded_frames(clip: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    read_video(clip, frames=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, COUNT) for i in range(COUNT)]


def test_times_begin_at_the_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = 50 + index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert read_video(path).timestamps == pytest.approx([i / FPS for i in range(10)], abs=2e-3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_the_display_matrix_turns_frames_upright(clip: Path, tmp_path: Path, degrees: int) -> None:
    # A phone's file: the track header says by how much to turn clockwise.
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one = 1 << 16
    matrix = struct.pack(">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    straight = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    content = clip.read_bytes()
    header = content.index(b"tkhd")
    at = content.index(straight, header)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:at] + matrix + content[at + len(straight) :])
    expected = torch.rot90(read_video(clip).frames, -degrees // 90, (1, 2))
    assert torch.equal(read_video(turned).frames, expected)


def test_wishes_that_make_no_sense(clip: Path) -> None:
    with pytest.raises(VideoError, match=r"clip\.mp4.*not both"):
        read_video(clip, frames=3, fps=1)
    for frames in (0, -1):
        with pytest.raises(VideoError, match=r"clip\.mp4.*at least 1"):
            read_video(clip, frames=frames)
    for fps in (0, -2.0, float("nan")):
        with pytest.raises(VideoError, match=r"clip\.mp4.*above 0"):
            read_video(clip, fps=fps)


def test_missing_and_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4.*no such file"):
        read_video(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="folder"):
        read_video(tmp_path)
    for content in (b"", b"this is a text" * 100):
        (tmp_path / "text.mp4").write_bytes(content)
        with pytest.raises(VideoError, match=r"text\.mp4.*not a video"):
            read_video(tmp_path / "text.mp4")


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(VideoError, match=r"sound\.mkv.*no video stream"):
        read_video(path)


def test_no_frames(tmp_path: Path) -> None:
    content = write(tmp_path / "full.mkv", "libx264", count=3).read_bytes()
    path = tmp_path / "empty.mkv"
    path.write_bytes(content[: content.index(b"\x1f\x43\xb6\x75")])  # everything before the first cluster
    with pytest.raises(VideoError, match=r"empty\.mkv"):
        read_video(path)


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("sampling", [{}, {"frames": 4}, {"fps": 2.0}])
def test_truncated_files(tmp_path: Path, share: float, sampling: dict) -> None:
    plain = write(tmp_path / "plain.mp4")  # its table of frames is at the end
    table_first = write(tmp_path / "table_first.mp4", options={"movflags": "faststart"})
    for path in (plain, table_first):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(VideoError, match=rf"{path.name}.*cut off"):
            read_video(path, **sampling)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])  # a Matroska file does not announce its number of frames
def test_size_without_decoding_the_file(tmp_path: Path, name: str) -> None:
    size = video_size(write(tmp_path / name))
    assert (size.frames, size.height, size.width) == (COUNT, HEIGHT, WIDTH)


def test_size_of_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4: not a video"):
        video_size(tmp_path / "text.mp4")
    with pytest.raises(VideoError, match="no such file"):
        video_size(tmp_path / "nothing.mp4")


@pytest.mark.parametrize(
    "span", [{}, {"fps": 3.0}, {"start": 0.5, "end": 1.3}, {"start": 0.51, "fps": 2.5}, {"end": 0.001}]
)
def test_one_after_the_other_are_the_same_frames(clip: Path, span: dict) -> None:
    video = read_video(clip, **span)
    times, frames = zip(*frames_of(clip, **span), strict=True)
    assert times == video.timestamps
    assert torch.equal(torch.stack(frames), video.frames)


def test_one_after_the_other_of_what_is_no_video(clip: Path, tmp_path: Path) -> None:
    for path, span, told in (
        (tmp_path / "none.mp4", {}, "no such file"),
        (clip, {"start": 90.0}, "nothing is shown from 90"),
        (clip, {"fps": 0.0}, "fps must be above 0"),
    ):
        with pytest.raises(VideoError, match=told):
            next(frames_of(path, **span))
